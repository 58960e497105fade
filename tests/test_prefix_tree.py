"""The prefix tree against sets of blocks: shared trunks, forks, rewinds and holds."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.ids import ReplicaId
from scheduler.prefix_tree import PrefixNode, PrefixTree

REPLICAS = 3


def chain(letters: str) -> list[int]:
    """Chained hashes: equal hashes are equal prefixes."""
    return [hash(letters[: n + 1]) & ((1 << 63) - 1) for n in range(len(letters))]


def shared(one: str, other: str) -> int:
    """Return how many leading letters two words have in common."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def test_a_trunk_is_counted_once_and_a_fork_only_for_what_is_its_own() -> None:
    tree = PrefixTree(1)
    one = tree.extend(tree.root, chain("aaaab"), 5)
    two = tree.extend(tree.root, chain("aaaacc"), 6)
    tree.hold(one, ReplicaId(0))
    assert tree.held_blocks == [5]
    assert tree.num_held(two, ReplicaId(0)) == 4
    tree.hold(two, ReplicaId(0))
    assert tree.held_blocks == [7]
    assert tree.num_private(two, ReplicaId(0)) == 2
    tree.release(one, ReplicaId(0))
    assert tree.held_blocks == [6]


def test_a_growing_session_stays_one_node_as_its_hold_follows() -> None:
    tree = PrefixTree(1)
    leaf, letters = tree.root, ""
    held: PrefixNode | None = None
    for _ in range(50):
        letters += "xyz"
        leaf = tree.extend(leaf, chain(letters), len(letters))
        tree.hold(leaf, ReplicaId(0))
        if held is not None:
            tree.release(held, ReplicaId(0))
        tree.join(leaf)
        held = leaf
    assert leaf.parent is tree.root
    assert tree.held_blocks == [150]


class TreeMachine(RuleBasedStateMachine):
    """Sessions over two letters, so that they share, fork and rewind all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree(REPLICAS)
        self.leaves: dict[int, PrefixNode] = {}
        self.letters: dict[int, str] = {}
        self.holds: dict[int, tuple[PrefixNode, ReplicaId, str]] = {}

    @rule(session=st.integers(0, 4), letters=st.text("ab", max_size=8))
    def extend(self, session: int, letters: str) -> None:
        before = self.letters.get(session, "")
        leaf = self.leaves.get(session, self.tree.root)
        common = shared(before, letters)
        assert self.tree.num_common(leaf, chain(letters), len(letters)) == common
        self.leaves[session] = self.tree.extend(leaf, chain(letters + "tail"), len(letters))
        self.letters[session] = letters

    @precondition(lambda self: self.leaves)
    @rule(data=st.data(), replica=st.integers(0, REPLICAS - 1))
    def hold(self, data: st.DataObject, replica: int) -> None:
        session = data.draw(st.sampled_from(sorted(self.leaves)))
        leaf = self.leaves[session]
        self.tree.hold(leaf, ReplicaId(replica))
        self.release(session)
        self.holds[session] = leaf, ReplicaId(replica), self.letters[session]
        self.tree.join(leaf)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self.release(data.draw(st.sampled_from(sorted(self.holds))))

    @precondition(lambda self: self.leaves)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.leaves)))
        self.release(session)
        self.tree.forget(self.leaves.pop(session))
        del self.letters[session]

    def release(self, session: int) -> None:
        if session in self.holds:
            leaf, replica, _ = self.holds.pop(session)
            self.tree.release(leaf, replica)

    def held(self, replica: int) -> set[str]:
        """Every prefix somebody holds there: one a block."""
        return {
            letters[: n + 1]
            for _, where, letters in self.holds.values()
            if where == replica
            for n in range(len(letters))
        }

    @invariant()
    def counts_are_those_of_sets(self) -> None:
        self.tree.check_invariants(list(self.leaves.values()))
        assert self.tree.held_blocks == [len(self.held(r)) for r in range(REPLICAS)]

    @invariant()
    def what_is_held_of_a_path_is_its_longest_prefix_in_the_set(self) -> None:
        for session, leaf in self.leaves.items():
            letters = self.letters[session]
            assert leaf.end == len(letters)
            lengths: list[int] = []
            for replica in range(REPLICAS):
                held, length = self.held(replica), 0
                while length < len(letters) and letters[: length + 1] in held:
                    length += 1
                assert self.tree.num_held(leaf, ReplicaId(replica)) == length
                lengths.append(length)
            most = max(lengths)
            holders = {r for r in range(REPLICAS) if lengths[r] == most and most}
            assert set(self.tree.holders(leaf)) == holders


TestTree = TreeMachine.TestCase
