"""The block pool against a plain model with one object a block, and its invariants."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hw_model.engine.block_pool import BlockPool
from hw_model.engine.block_run import BlockTable
from hw_model.engine.kv_events import BlocksRemoved, BlocksStored, KvEventLog
from hw_model.errors import InvariantError

NUM_BLOCKS = 24


class PlainPool:
    """vLLM's rules with lists: a queue of free block ids, and what each block holds."""

    def __init__(self, num_blocks: int) -> None:
        self.queue = list(range(num_blocks))
        self.holds: dict[int, int] = {}  # block id -> hash
        self.index: dict[int, list[int]] = {}  # hash -> block ids, the oldest first
        self.refs = [0] * num_blocks

    def find(self, hashes: list[int], limit: int) -> list[int]:
        found = []
        for block_hash in hashes[:limit]:
            if block_hash not in self.index:
                break
            found.append(self.index[block_hash][0])
        return found

    def take(self, found: list[int]) -> None:
        for block in found:
            if self.refs[block] == 0:
                self.queue.remove(block)
            self.refs[block] += 1

    def allocate(self, num_blocks: int) -> list[int]:
        taken, self.queue = self.queue[:num_blocks], self.queue[num_blocks:]
        for block in taken:
            if block in self.holds:
                block_hash = self.holds.pop(block)
                self.index[block_hash].remove(block)
                if not self.index[block_hash]:
                    del self.index[block_hash]
            self.refs[block] = 1
        return taken

    def commit(self, block: int, block_hash: int) -> None:
        self.index.setdefault(block_hash, []).append(block)
        self.holds[block] = block_hash

    def release(self, blocks: list[int]) -> None:
        for block in blocks:
            self.refs[block] -= 1
        freed = [block for block in reversed(blocks) if self.refs[block] == 0]
        empty = [block for block in freed if block not in self.holds]
        self.queue = empty + self.queue + [block for block in freed if block in self.holds]

    def forget(self, hashes: list[int], start: int) -> int:
        found = self.find(hashes, len(hashes))
        forgotten = 0
        for position in reversed(range(start, len(found))):
            block = found[position]
            if self.refs[block]:
                break
            self.queue.remove(block)
            self.index[self.holds[block]].remove(block)
            if not self.index[self.holds[block]]:
                del self.index[self.holds[block]]
            del self.holds[block]
            self.queue.insert(0, block)
            forgotten += 1
        return forgotten


def chain(branch: int, fork: int, length: int) -> list[int]:
    """A chain that equals branch 0 up to ``fork`` and is its own from there on."""
    own = (branch * 100 + fork) * 1000
    return [position if position < fork else own + position for position in range(length)]


class PoolMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.log = KvEventLog()
        self.told: Counter[int] = Counter()
        self.pool = BlockPool(NUM_BLOCKS, self.log)
        self.plain = PlainPool(NUM_BLOCKS)
        self.live: list[tuple[BlockTable, list[int], list[int], int]] = []

    @rule(
        branch=st.integers(0, 3),
        fork=st.integers(0, 6),
        length=st.integers(1, 12),
        limit=st.integers(0, 12),
        extra=st.integers(0, 2),
    )
    def run_a_request(self, branch: int, fork: int, length: int, limit: int, extra: int) -> None:
        hashes = chain(branch, fork if branch else 12, length)
        hit = self.pool.find_prefix(hashes, min(limit, length))
        found = self.plain.find(hashes, limit)
        assert hit.num_blocks == len(found)
        assert hit.num_free == sum(self.plain.refs[block] == 0 for block in found)
        needed = length - len(found) + extra
        if needed + hit.num_free > self.pool.num_free:
            return
        table = BlockTable()
        self.pool.take_hit(table, hit)
        self.plain.take(found)
        self.pool.allocate(table, needed)
        blocks = found + self.plain.allocate(needed)
        self.live.append((table, blocks, hashes, len(found)))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def fill_blocks(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.live) - 1))
        table, blocks, hashes, committed = self.live[position]
        upto = data.draw(st.integers(committed, len(hashes)))
        self.pool.commit(table, hashes[committed:upto])
        for index in range(committed, upto):
            self.plain.commit(blocks[index], hashes[index])
        self.live[position] = (table, blocks, hashes, upto)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        table, blocks, _, _ = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.pool.release(table)
        self.plain.release(blocks)

    @rule(branch=st.integers(0, 3), fork=st.integers(0, 6), start=st.integers(0, 12))
    def forget(self, branch: int, fork: int, start: int) -> None:
        hashes = chain(branch, fork if branch else 12, 12)
        assert self.pool.forget(hashes, start) == self.plain.forget(hashes, start)

    @rule()
    def clear(self) -> None:
        if self.pool.clear():
            assert not self.live or all(table.num_blocks == 0 for table, *_ in self.live)
            self.plain = PlainPool(NUM_BLOCKS)

    @invariant()
    def who_follows_the_events_knows_what_is_cached(self) -> None:
        for event in self.log.take():
            if isinstance(event, BlocksStored):
                self.told.update(event.hashes)
            elif isinstance(event, BlocksRemoved):
                self.told.subtract(event.hashes)
            else:
                self.told.clear()
        cached = {h: len(ids) for h, ids in self.plain.index.items()}
        assert {h: count for h, count in self.told.items() if count} == cached

    @invariant()
    def nothing_is_lost_or_in_two_places(self) -> None:
        self.pool.check_invariants(table for table, *_ in self.live)

    @invariant()
    def it_holds_what_the_plain_pool_holds(self) -> None:
        assert self.pool.num_free == len(self.plain.queue)
        assert set(self.pool._found) == set(self.plain.index)
        copies = {block_hash: len(runs) for block_hash, runs in self.pool._copies.items()}
        assert copies == {h: len(ids) - 1 for h, ids in self.plain.index.items() if len(ids) > 1}

    @invariant()
    def blocks_leave_in_the_same_order(self) -> None:
        order: list[int | None] = [None] * self.pool.num_empty
        for run in self.pool._queued_runs():
            order += reversed(run.hashes)
        assert order == [self.plain.holds.get(block) for block in self.plain.queue]


TestPoolAgainstPlainModel = PoolMachine.TestCase


def held(pool: BlockPool, hashes: list[int]) -> BlockTable:
    table = BlockTable()
    pool.allocate(table, len(hashes))
    pool.commit(table, hashes)
    return table


def test_a_released_context_is_found_again_until_its_blocks_are_taken() -> None:
    pool = BlockPool(8)
    pool.release(held(pool, [1, 2, 3, 4]))
    assert pool.find_prefix([1, 2, 3, 4, 5], 5).num_blocks == 4
    held(pool, [11, 12, 13, 14, 15])  # four empty blocks and one evicted
    assert pool.find_prefix([1, 2, 3, 4, 5], 5).num_blocks == 3, "tails go before heads"


def test_a_shared_trunk_is_counted_once_and_outlives_its_first_holder() -> None:
    pool = BlockPool(8)
    first = held(pool, [1, 2, 3])
    second = BlockTable()
    pool.take_hit(second, pool.find_prefix([1, 2, 99], 3))
    pool.allocate(second, 1)
    pool.commit(second, [99])
    assert pool.num_free == 8 - 4
    pool.release(first)
    assert pool.num_free == 8 - 3
    pool.check_invariants([second])


def test_allocating_more_than_is_free_is_our_bug_and_says_so() -> None:
    pool = BlockPool(2)
    with pytest.raises(InvariantError, match="3 blocks asked of 2"):
        pool.allocate(BlockTable(), 3)


def test_a_double_release_frees_nothing_twice() -> None:
    pool = BlockPool(4)
    table = held(pool, [1, 2])
    pool.release(table)
    pool.release(table)
    assert pool.num_free == 4
    pool.check_invariants([])
