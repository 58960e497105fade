"""The KV blocks of one replica: who holds them, what they hold, and which goes first.

vLLM keeps one object a block and touches each of a context's 2,000 blocks on every turn. Here
blocks of one chain that share their fate form a *run*, and a turn touches runs: its own context and
the trunks it shares. The rules are vLLM's (``v1/core/block_pool.py``):

* Free blocks stand in one queue. Allocation takes from its front; a cached block taken is evicted.
* A freed block table joins the back of the queue last block first, so tails go before heads.
* A cached block that is free stays usable until taken; a hit takes it out of the queue.

One deviation: when two requests compute the same new block at once, vLLM keeps both copies
findable. Here the second is a shadow: held while its request runs, worth nothing afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hw_model.errors import InvariantError


class BlockRun:
    """Consecutive blocks of one chain with the same holders.

    Invariant: ``hashes is None or len(hashes) == num_blocks``. A run without hashes holds nothing
    that can be found. A run is in the free queue exactly if it has no holders.
    """

    __slots__ = ("following", "hashes", "holders", "num_blocks", "previous", "start")

    def __init__(self, start: int, num_blocks: int, hashes: list[int] | None) -> None:
        self.start = start  # position in the chain of its first block
        self.num_blocks = num_blocks
        self.hashes = hashes
        # A dict for its order: holders are visited the same way in every run of the program.
        self.holders: dict[BlockTable, None] = {}
        self.previous: BlockRun | None = None
        self.following: BlockRun | None = None


class BlockTable:
    """The blocks one request holds, in order: runs, then loose blocks not (yet) full or hashed.

    Invariant: ``num_blocks`` is the sum over ``runs`` plus ``num_loose``; every run names this
    table as a holder.
    """

    __slots__ = ("num_blocks", "num_loose", "runs")

    def __init__(self) -> None:
        self.runs: list[BlockRun] = []
        self.num_loose = 0
        self.num_blocks = 0


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """The cached blocks that a chain of hashes starts with.

    Attributes:
        parts: ``(run, offset, num_blocks)`` in chain order.
        num_blocks: Blocks hit.
        num_free: How many of them no request holds; taking the hit removes them from the queue.
    """

    parts: tuple[tuple[BlockRun, int, int], ...]
    num_blocks: int
    num_free: int


NO_HIT = PrefixHit((), 0, 0)


class BlockPool:
    """A fixed number of blocks, each held, or free and cached, or free and empty.

    Invariant: see ``check_invariants``.
    """

    __slots__ = ("_back", "_front", "_index", "num_blocks", "num_empty", "num_evicted", "num_free")

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_free = num_blocks  # blocks without holders, cached ones included
        self.num_empty = 0  # free blocks that hold nothing; the push below counts them
        self.num_evicted = 0  # cached blocks given up so far
        self._index: dict[int, BlockRun] = {}  # hash -> the run that holds its block
        self._front: BlockRun | None = None
        self._back: BlockRun | None = None
        self._push_empty(num_blocks)

    def find_prefix(self, hashes: Sequence[int], limit: int) -> PrefixHit:
        """Return the longest cached prefix of ``hashes[:limit]``; changes nothing.

        Cost: O(runs hit), plus O(log blocks) where a run is hit in part.
        """
        parts = []
        position = num_free = 0
        while position < limit:
            run = self._index.get(hashes[position])
            if run is None:
                break
            offset = position - run.start
            length = _common_length(run, offset, hashes, position, limit)
            parts.append((run, offset, length))
            position += length
            if not run.holders:
                num_free += length
        return PrefixHit(tuple(parts), position, num_free) if parts else NO_HIT

    def take_hit(self, table: BlockTable, hit: PrefixHit) -> None:
        """Make an empty ``table`` hold the blocks of a hit found since the last change."""
        for found, offset, length in hit.parts:
            run = found if offset == 0 else self._split(found, offset)[1]
            if run.num_blocks > length:
                run = self._split(run, length)[0]
            if not run.holders:
                self._unlink(run)
                self.num_free -= length
            run.holders[table] = None
            table.runs.append(run)
        table.num_blocks += hit.num_blocks

    def allocate(self, table: BlockTable, num_blocks: int) -> None:
        """Give ``table`` loose blocks from the front of the queue, evicting what is there.

        Raises:
            InvariantError: Fewer are free; the caller must look at ``num_free`` first.
        """
        if num_blocks > self.num_free:
            raise InvariantError(f"{num_blocks} blocks asked of {self.num_free} free ones")
        self.num_free -= num_blocks
        table.num_loose += num_blocks
        table.num_blocks += num_blocks
        while num_blocks:
            run = self._front
            if run is None:
                raise InvariantError("the free queue ended before num_free blocks were taken")
            taken = min(num_blocks, run.num_blocks)
            if run.hashes is None:
                self.num_empty -= taken
            else:
                for block_hash in run.hashes[-taken:]:
                    del self._index[block_hash]
                del run.hashes[-taken:]
                self.num_evicted += taken
            run.num_blocks -= taken
            num_blocks -= taken
            if run.num_blocks == 0:
                self._unlink(run)

    def commit(self, table: BlockTable, hashes: Sequence[int]) -> None:
        """Make the first ``len(hashes)`` loose blocks of ``table`` findable by their hashes.

        Cost: O(len(hashes)).
        """
        table.num_loose -= len(hashes)
        for block_hash in hashes:
            known = block_hash in self._index
            last = table.runs[-1] if table.runs else None
            if last is None or (last.hashes is None) != known or len(last.holders) > 1:
                last = self._open_run(table, last, findable=not known)
            last.num_blocks += 1
            if last.hashes is not None:
                last.hashes.append(block_hash)
                self._index[block_hash] = last

    def release(self, table: BlockTable) -> None:
        """Free everything ``table`` holds, last block first, and leave it empty."""
        if table.num_loose:
            self.num_free += table.num_loose
            self._push_empty(table.num_loose)
        for run in reversed(table.runs):
            del run.holders[table]
            if run.holders:
                continue
            self.num_free += run.num_blocks
            if run.hashes is None:
                self._push_empty(run.num_blocks)
            else:
                self._link_after(run, self._back)
        table.runs.clear()
        table.num_loose = table.num_blocks = 0

    def check_invariants(self, tables: Iterable[BlockTable]) -> None:
        """Raise if any block is lost or in two places; ``tables`` are all live ones. O(blocks).

        Raises:
            InvariantError: Names the invariant that is broken.
        """
        held: dict[int, BlockRun] = {}
        num_loose = 0
        for table in tables:
            num_loose += table.num_loose
            _require(
                table.num_blocks == table.num_loose + sum(run.num_blocks for run in table.runs),
                "a table's block count is the sum of its parts",
            )
            for run in table.runs:
                _require(table in run.holders, "a table's runs name it as a holder")
                held[id(run)] = run
        free = self._queued_runs()
        _require(not any(run.holders for run in free), "queued runs have no holders")
        num_free = sum(run.num_blocks for run in free)
        num_held = num_loose + sum(run.num_blocks for run in held.values())
        _require(num_free == self.num_free, "num_free counts the queue")
        _require(num_free + num_held == self.num_blocks, "every block is free or held, once")
        _require(
            self.num_empty == sum(run.num_blocks for run in free if run.hashes is None),
            "num_empty counts the free blocks without content",
        )
        findable = [run for run in (*free, *held.values()) if run.hashes is not None]
        for run in findable:
            hashes = run.hashes or []
            _require(len(hashes) == run.num_blocks > 0, "a run has one hash a block")
            _require(all(self._index.get(h) is run for h in hashes), "the index names each run")
        _require(
            len(self._index) == sum(run.num_blocks for run in findable),
            "the index holds findable blocks and nothing else",
        )

    def _queued_runs(self) -> list[BlockRun]:
        runs, run = [], self._front
        while run is not None:
            runs.append(run)
            run = run.following
        return runs

    def _open_run(self, table: BlockTable, last: BlockRun | None, *, findable: bool) -> BlockRun:
        start = 0 if last is None else last.start + last.num_blocks
        run = BlockRun(start, 0, [] if findable else None)
        run.holders[table] = None
        table.runs.append(run)
        return run

    def _split(self, run: BlockRun, length: int) -> tuple[BlockRun, BlockRun]:
        """Cut a findable run after ``length`` blocks; the larger part keeps its identity."""
        hashes = run.hashes or []
        middle = run.start + length
        if length * 2 >= run.num_blocks:
            new = tail = BlockRun(middle, run.num_blocks - length, hashes[length:])
            head = run
            del hashes[length:]
        else:
            new = head = BlockRun(run.start, length, hashes[:length])
            tail = run
            tail.start = middle
            del hashes[:length]
        run.num_blocks -= new.num_blocks
        for block_hash in new.hashes or ():
            self._index[block_hash] = new
        for table in run.holders:
            new.holders[table] = None
            position = table.runs.index(run)
            table.runs.insert(position if new is head else position + 1, new)
        if not run.holders:
            self._link_after(new, run if new is head else run.previous)
        return head, tail

    def _push_empty(self, num_blocks: int) -> None:
        self.num_empty += num_blocks
        if self._back is not None and self._back.hashes is None:
            self._back.num_blocks += num_blocks
        else:
            self._link_after(BlockRun(0, num_blocks, None), self._back)

    def _link_after(self, run: BlockRun, previous: BlockRun | None) -> None:
        following = self._front if previous is None else previous.following
        run.previous, run.following = previous, following
        if previous is None:
            self._front = run
        else:
            previous.following = run
        if following is None:
            self._back = run
        else:
            following.previous = run

    def _unlink(self, run: BlockRun) -> None:
        if run.previous is None:
            self._front = run.following
        else:
            run.previous.following = run.following
        if run.following is None:
            self._back = run.previous
        else:
            run.following.previous = run.previous
        run.previous = run.following = None


def _common_length(
    run: BlockRun, offset: int, hashes: Sequence[int], position: int, limit: int
) -> int:
    """Blocks of ``run`` from ``offset`` that equal ``hashes[position:limit]``, at least 1.

    A chained hash names all that came before it, so equality is monotone and can be bisected.
    """
    known = run.hashes or []
    longest = min(run.num_blocks - offset, limit - position)
    if known[offset + longest - 1] == hashes[position + longest - 1]:
        return longest
    equal, different = 1, longest
    while different - equal > 1:
        middle = (equal + different) // 2
        if known[offset + middle - 1] == hashes[position + middle - 1]:
            equal = middle
        else:
            different = middle
    return equal


def _require(condition: bool, invariant: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise InvariantError(f"block pool: {invariant}")
