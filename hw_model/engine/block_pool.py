"""The KV blocks of one replica: who holds them, what they hold, and which goes first.

vLLM keeps one object a block and touches each of a context's 2,000 blocks on every turn. Here
blocks of one chain that share their fate form a *run*, and a turn touches runs: its own context and
the trunks it shares. The rules are those of vLLM 0.32 (``v1/core/block_pool.py``):

* Free blocks stand in one queue; allocation takes from its front. Blocks that hold nothing go to
  the front when freed, so they are always taken first and a count of them is enough.
* Cached blocks join the back when freed, the last block of a table first, so tails go before heads.
  A cached block that is taken is evicted.
* A cached block that is free stays usable until taken; a hit takes it out of the queue.
* When two requests compute the same block at once, both copies are kept. The older one is found;
  once it is evicted, the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hw_model.engine.block_run import NO_HIT, BlockRun, BlockTable, PrefixHit, common_length
from hw_model.engine.kv_events import KvEventLog
from hw_model.errors import InvariantError


class BlockPool:
    """A fixed number of blocks, each held, or free and cached, or free and empty.

    Args:
        num_blocks: How many.
        log: Where to note what the cache gains and loses, if anywhere.

    Invariant: see ``check_invariants``.
    """

    __slots__ = (
        "_back",
        "_copies",
        "_found",
        "_front",
        "log",
        "num_blocks",
        "num_empty",
        "num_evicted",
        "num_free",
        "num_kept",
    )

    def __init__(self, num_blocks: int, log: KvEventLog | None = None) -> None:
        self.num_blocks = num_blocks
        self.log = log
        self.num_free = num_blocks  # blocks without holders, cached ones included
        self.num_empty = num_blocks  # free blocks that hold nothing; taken before all others
        self.num_evicted = 0  # cached blocks given up so far
        self.num_kept = 0  # held blocks that no request holds
        self._found: dict[int, BlockRun] = {}  # hash -> the run whose block is found by it
        self._copies: dict[int, list[BlockRun]] = {}  # hash -> runs with younger copies, in order
        self._front: BlockRun | None = None
        self._back: BlockRun | None = None

    def find_prefix(self, hashes: Sequence[int], limit: int) -> PrefixHit:
        """Return the longest cached prefix of ``hashes[:limit]``; changes nothing.

        Cost: O(runs hit), plus O(log blocks) where a run is hit in part.
        """
        parts = []
        position = num_free = 0
        while position < limit:
            run = self._found.get(hashes[position])
            if run is None:
                break
            offset = position - run.start
            length = common_length(run.hashes, offset, hashes, position, limit)
            parts.append((run, offset, length))
            position += length
            if not run.holders:
                num_free += length
        return PrefixHit(tuple(parts), position, num_free) if parts else NO_HIT

    def take_hit(self, table: BlockTable, hit: PrefixHit) -> None:
        """Make an empty ``table`` hold the blocks of a hit found since the last change."""
        for found, offset, length in hit.parts:
            run = found if offset == 0 else self._split(found, offset)[1]
            if len(run.hashes) > length:
                run = self._split(run, length)[0]
            if not run.holders:
                self._unlink(run)
                self.num_free -= length
                if table.keeps:
                    self.num_kept += length
            elif not table.keeps and run.num_keeping == len(run.holders):
                self.num_kept -= length
            run.holders[table] = None
            if table.keeps:
                run.num_keeping += 1
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
        if table.keeps:
            self.num_kept += num_blocks
        if num_blocks <= self.num_empty:
            self.num_empty -= num_blocks
        else:
            self._evict(num_blocks - self.num_empty)
            self.num_empty = 0

    def commit(self, table: BlockTable, hashes: Sequence[int]) -> None:
        """Make the first ``len(hashes)`` loose blocks of ``table`` cached under their hashes.

        Cost: O(len(hashes)).
        """
        if not hashes:
            return
        table.num_loose -= len(hashes)
        last = table.runs[-1] if table.runs else None
        if self.log is not None:
            parent_hash = None if last is None else last.hashes[-1]
            start = table.num_blocks - table.num_loose - len(hashes)
            self.log.computed(hashes, parent_hash, table.owner, start)
        if len(hashes) > 1 and self._found.keys().isdisjoint(hashes):
            last = self._open_run(table, last, is_found=True)
            last.hashes.extend(hashes)
            self._found.update(dict.fromkeys(hashes, last))
            return
        for block_hash in hashes:
            is_found = block_hash not in self._found
            last = self._open_run(table, last, is_found=is_found)
            last.hashes.append(block_hash)
            if is_found:
                self._found[block_hash] = last
            else:
                self._copies.setdefault(block_hash, []).append(last)

    def release(self, table: BlockTable) -> None:
        """Free everything ``table`` holds, last block first, and leave it empty."""
        self.num_free += table.num_loose
        self.num_empty += table.num_loose
        if table.keeps:
            self.num_kept -= table.num_loose
        for run in reversed(table.runs):
            del run.holders[table]
            if table.keeps:
                run.num_keeping -= 1
            if not run.holders:
                self.num_free += len(run.hashes)
                if table.keeps:
                    self.num_kept -= len(run.hashes)
                self._link_after(run, self._back)
            elif not table.keeps and run.num_keeping == len(run.holders):
                self.num_kept += len(run.hashes)
        table.runs.clear()
        table.num_loose = table.num_blocks = 0

    def forget(self, hashes: Sequence[int], start: int = 0) -> int:
        """Empty the blocks of a chain from ``start`` on that nobody holds, its end first.

        Returns:
            How many. It stops at the first block from the end that is held.
        """
        hit = self.find_prefix(hashes, len(hashes))
        num_forgotten = 0
        for run, offset, length in reversed(hit.parts):
            keep = max(0, start - run.start - offset)
            if keep >= length:
                break
            if run.holders:
                break
            num_forgotten += self._forget_part(run, offset + keep, length - keep)
            if keep:
                break
        return num_forgotten

    def clear(self) -> bool:
        """Forget everything that is cached, as vLLM's ``reset_prefix_cache`` does.

        Returns:
            False, with nothing changed, when anything is held.
        """
        if self.num_free < self.num_blocks:
            return False
        self._found.clear()
        self._copies.clear()
        self._front = self._back = None
        self.num_empty = self.num_blocks
        if self.log is not None:
            self.log.cleared()
        return True

    def check_invariants(self, tables: Iterable[BlockTable]) -> None:
        """Raise if any block is lost or in two places; ``tables`` are all live ones. O(blocks).

        Raises:
            InvariantError: Names the invariant that is broken.
        """
        held: dict[int, BlockRun] = {}
        num_loose = num_kept = 0
        for table in tables:
            num_loose += table.num_loose
            num_kept += table.num_loose * table.keeps
            num_blocks = table.num_loose + sum(len(run.hashes) for run in table.runs)
            _require(table.num_blocks == num_blocks, "a table's count is the sum of its parts")
            _require(
                all(table in run.holders for run in table.runs), "a table's runs name it a holder"
            )
            held.update((id(run), run) for run in table.runs)
        queued = self._queued_runs()
        _require(not any(run.holders for run in queued), "queued runs have no holders")
        num_free = self.num_empty + sum(len(run.hashes) for run in queued)
        num_held = num_loose + sum(len(run.hashes) for run in held.values())
        num_kept += sum(
            len(run.hashes) for run in held.values() if all(table.keeps for table in run.holders)
        )
        _require(num_free == self.num_free, "num_free counts the queue")
        _require(num_kept == self.num_kept, "num_kept counts what no request holds")
        _require(num_free + num_held == self.num_blocks, "every block is free or held, once")
        num_found = num_copies = 0
        for run in (*queued, *held.values()):
            _require(len(run.hashes) > 0, "a run has blocks")
            if run.is_found:
                num_found += len(run.hashes)
                _require(
                    all(self._found[h] is run for h in run.hashes), "what is found is in place"
                )
            else:
                num_copies += len(run.hashes)
                _require(all(run in self._copies[h] for h in run.hashes), "copies are known")
        _require(num_found == len(self._found), "nothing is found that is not there")
        _require(num_copies == sum(map(len, self._copies.values())), "no copy is known twice")

    def _open_run(self, table: BlockTable, last: BlockRun | None, *, is_found: bool) -> BlockRun:
        """Return the table's last run if it can be longer, else a new one after it."""
        if last is not None and last.is_found == is_found and len(last.holders) == 1:
            return last
        start = 0 if last is None else last.start + len(last.hashes)
        run = BlockRun(start, [], is_found=is_found)
        run.holders[table] = None
        run.num_keeping = int(table.keeps)
        table.runs.append(run)
        return run

    def _queued_runs(self) -> list[BlockRun]:
        runs, run = [], self._front
        while run is not None:
            runs.append(run)
            run = run.following
        return runs

    def _forget_part(self, run: BlockRun, offset: int, length: int) -> int:
        """Empty ``length`` blocks of a free run from ``offset`` on; return how many."""
        if offset + length < len(run.hashes):
            run = self._split(run, offset + length)[0]
        if offset:
            run = self._split(run, offset)[1]
        self._unlink(run)
        self.num_empty += length
        self._unfind(run, run.hashes)
        return length

    def _evict(self, num_blocks: int) -> None:
        """Empty so many cached blocks from the front of the queue."""
        self.num_evicted += num_blocks
        while num_blocks:
            run = self._front
            if run is None:
                raise InvariantError("the free queue ended before num_free blocks were taken")
            taken = min(num_blocks, len(run.hashes))
            evicted = run.hashes[-taken:]
            del run.hashes[-taken:]
            num_blocks -= taken
            if not run.hashes:
                self._unlink(run)
            self._unfind(run, evicted)

    def _unfind(self, run: BlockRun, hashes: list[int]) -> None:
        """Have blocks that were at the end of ``run`` be found no more, last one first."""
        if self.log is not None:
            self.log.removed(hashes[::-1])
        if run.is_found and not self._copies:
            for block_hash in hashes:
                del self._found[block_hash]
            return
        for block_hash in reversed(hashes):
            if run.is_found:
                del self._found[block_hash]
                self._promote_copy(block_hash)
            else:
                self._drop_copy(block_hash, run)

    def _promote_copy(self, block_hash: int) -> None:
        """Let the next copy of a block be found, if there is one."""
        copies = self._copies.get(block_hash)
        if copies is None:
            return
        run = copies[0]
        self._drop_copy(block_hash, run)
        offset = run.hashes.index(block_hash)
        if offset:
            run = self._split(run, offset)[1]
        if len(run.hashes) > 1:
            run = self._split(run, 1)[0]
        run.is_found = True
        self._found[block_hash] = run

    def _drop_copy(self, block_hash: int, run: BlockRun) -> None:
        copies = self._copies[block_hash]
        copies.remove(run)
        if not copies:
            del self._copies[block_hash]

    def _split(self, run: BlockRun, length: int) -> tuple[BlockRun, BlockRun]:
        """Cut a run after ``length`` blocks; the larger part keeps its identity."""
        middle = run.start + length
        if length * 2 >= len(run.hashes):
            new = tail = BlockRun(middle, run.hashes[length:], is_found=run.is_found)
            head = run
            del run.hashes[length:]
        else:
            new = head = BlockRun(run.start, run.hashes[:length], is_found=run.is_found)
            tail = run
            tail.start = middle
            del run.hashes[:length]
        self._reindex(run, new)
        new.num_keeping = run.num_keeping
        for table in run.holders:
            new.holders[table] = None
            position = table.runs.index(run)
            table.runs.insert(position if new is head else position + 1, new)
        if not run.holders:
            self._link_after(new, run if new is head else run.previous)
        return head, tail

    def _reindex(self, old: BlockRun, new: BlockRun) -> None:
        """Have the hashes of ``new``, cut off ``old``, lead to it."""
        if new.is_found:
            for block_hash in new.hashes:
                self._found[block_hash] = new
            return
        for block_hash in new.hashes:
            copies = self._copies.get(block_hash, [])
            if old in copies:  # it is not while a block of it is being promoted
                copies[copies.index(old)] = new

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


def _require(condition: bool, invariant: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise InvariantError(f"block pool: {invariant}")
