"""What routers remember of prefixes, beside sets of hashes that do the same slowly."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.ids import ReplicaId
from scheduler.placement.active_blocks import ActiveBlocks
from scheduler.placement.routed_prefixes import RoutedPrefixes
from scheduler.rack import ReplicaFleet
from scheduler.session import Turn
from tests.placement_racks import PlacementRack, chain_of, own_chain

paths = st.lists(st.integers(0, 2), max_size=10)


def leading(hashes: list[int], there: set[int]) -> int:
    return next((n for n, block in enumerate(hashes) if block not in there), len(hashes))


class BlocksByUse:
    """``RoutedPrefixes`` block by block: of those used longest ago, the last of a chain goes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.blocks: dict[int, None] = {}

    def remember(self, hashes: list[int]) -> None:
        for block in reversed(hashes):
            self.blocks.pop(block, None)
            self.blocks[block] = None
        while len(self.blocks) > self.budget:
            del self.blocks[next(iter(self.blocks))]


@given(st.integers(1, 30), st.lists(paths, max_size=25), paths)
def test_the_least_recently_used_blocks_are_forgotten_tails_first(
    budget: int, sent: list[list[int]], asked: list[int]
) -> None:
    routed, slow = RoutedPrefixes(budget), BlocksByUse(budget)
    for path in sent:
        routed.remember(chain_of(path))
        slow.remember(chain_of(path))
        assert routed.num_blocks == len(slow.blocks) <= budget
        for other in (*sent, asked):
            chain = chain_of(other)
            assert routed.num_matched(chain) == leading(chain, set(slow.blocks))


def test_a_prefix_that_is_sent_for_ever_takes_no_more_memory() -> None:
    routed = RoutedPrefixes(100)
    for _ in range(1000):
        routed.remember(own_chain(1, 10))
    assert routed.num_blocks == 10
    assert len(routed._heap) <= 6


def test_the_least_recently_used_tail_goes_first_and_a_shared_trunk_last() -> None:
    trunk = own_chain(1, 4)
    old, new = [*trunk, *own_chain(2, 3)], [*trunk, *own_chain(3, 3)]
    routed = RoutedPrefixes(10)
    routed.remember(old)
    routed.remember(new)
    routed.remember(own_chain(4, 2))
    assert [routed.num_matched(chain) for chain in (old, new)] == [5, 7]
    routed.remember(new)
    routed.remember(own_chain(5, 3))
    assert [routed.num_matched(chain) for chain in (old, new, own_chain(4, 2))] == [4, 7, 0]
    assert routed.num_matched(own_chain(5, 3)) == 3


class SetsOfActiveBlocks:
    """``ActiveBlocks`` with a set a turn."""

    def __init__(self) -> None:
        self.turns: dict[Turn, int] = {}

    def num_after(self, turn: Turn, replica: int) -> int:
        there = [other for other, where in self.turns.items() if where == replica]
        blocks = set().union(*(other.block_hashes for other in (*there, turn)))
        return len(blocks) + sum(
            other.num_prompt_tokens // 64 - len(other.block_hashes) for other in (*there, turn)
        )


@given(
    st.lists(
        st.tuples(st.integers(0, 3), paths, st.integers(0, 2), st.integers(0, 2), st.booleans()),
        max_size=25,
    )
)
def test_active_blocks_are_the_union_of_what_turns_hold(
    turns: list[tuple[int, list[int], int, int, bool]],
) -> None:
    rack = PlacementRack(3)
    active, sets = ActiveBlocks(ReplicaFleet(3, 64_000)), SetsOfActiveBlocks()
    before: dict[int, list[int]] = {}
    for session, path, num_unhashed, replica, ends_one in turns:
        chain = chain_of(path)
        before[session] = chain
        num_tokens = (len(chain) + num_unhashed) * 64 + 5
        turn = rack.turn(f"s{session}", num_tokens, chain)
        assert active.with_turn(turn) == [sets.num_after(turn, where) for where in range(3)]
        active.begin(turn, ReplicaId(replica))
        sets.turns[turn] = replica
        if ends_one:
            ended = next(iter(sets.turns))
            active.end(ended)
            del sets.turns[ended]
        active.check_invariants()
    for turn in sets.turns:
        active.end(turn)
    for known in rack.sessions.values():
        active.forget(known)
    active.check_invariants()
    assert active.num_sessions == 0


def test_a_session_nobody_shares_with_stays_one_node_even_if_nobody_says_what_it_kept() -> None:
    rack, active = PlacementRack(1), ActiveBlocks(ReplicaFleet(1, 64_000))
    for num_blocks in range(1, 20):
        turn = rack.turn("s", num_blocks * 64, own_chain(1, num_blocks))
        assert active.with_turn(turn) == [num_blocks]
        active.begin(turn, ReplicaId(0))
        active.end(turn)
    (node,) = active._tree.root.children.values()
    assert not node.children
