"""Who shares which prefix, and which replica holds it: physical blocks counted once.

A radix tree over the block hashes of all sessions. A node is a stretch of blocks that nothing
branches off; sessions end at nodes, and a replica holds a node together with all before it. What a
turn costs is O(appended blocks + nodes on the path); paths are short, because a stretch that only
one session goes through is one node.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from hw_model.engine.block_run import common_length
from scheduler.errors import InvariantError
from scheduler.ids import ReplicaId


class PrefixNode:
    """A stretch of blocks.

    Attributes:
        start: Blocks before it.
        blocks: Hashes.
        num_refs: Sessions and holds whose path goes through it.
        holders: How many hold it, by replica.

    Invariant: a node but the root has blocks and references; every holder of a node holds its
        parent too.
    """

    __slots__ = ("blocks", "children", "holders", "num_refs", "parent", "start")

    def __init__(self, parent: PrefixNode | None, start: int, blocks: array[int]) -> None:
        self.parent = parent
        self.start = start
        self.blocks = blocks
        self.children: dict[int, PrefixNode] = {}
        self.num_refs = 0
        self.holders: dict[ReplicaId, int] = {}

    @property
    def end(self) -> int:
        """Blocks up to its end."""
        return self.start + len(self.blocks)


class PrefixTree:
    """The prefixes of all sessions.

    Attributes:
        root: Where a session without blocks ends.
        held_blocks: Distinct blocks held, per replica.
    """

    __slots__ = ("held_blocks", "root")

    def __init__(self, num_replicas: int) -> None:
        self.root = PrefixNode(None, 0, array("Q"))
        self.held_blocks = [0] * num_replicas

    def extend(self, leaf: PrefixNode, hashes: Sequence[int], num_blocks: int) -> PrefixNode:
        """Have a session that ends at ``leaf`` spell a chain; return where it ends then.

        Args:
            leaf: Where it ends; the root for a new session.
            hashes: Its chain, and what may follow.
            num_blocks: Of the chain.
        """
        kept = self.num_common(leaf, hashes, num_blocks)
        base = self._node_ending_at(leaf, kept)
        if base is leaf and kept < num_blocks and self._is_own(leaf):
            leaf.blocks.extend(hashes[kept:num_blocks])
            return leaf
        new = self._descend(base, hashes, num_blocks)
        node: PrefixNode | None = new
        while node is not base and node is not None:
            node.num_refs += 1
            node = node.parent
        if node is None:
            raise InvariantError("a path does not lead through its base")
        self._unref(leaf, base)
        return new

    def num_common(self, leaf: PrefixNode, hashes: Sequence[int], num_blocks: int) -> int:
        """Return how many leading blocks a path has in common with a chain of ``num_blocks``.

        O(nodes + log blocks): a hash stands for its block and all before it.
        """
        node = leaf
        while node.parent is not None:
            start, blocks = node.start, node.blocks
            if start < num_blocks and hashes[start] == blocks[0]:
                return start + common_length(blocks, 0, hashes, start, num_blocks)
            node = node.parent
        return 0

    def forget(self, leaf: PrefixNode) -> None:
        """Forget a session that ends at ``leaf``."""
        self._unref(leaf, self.root)

    def hold(self, leaf: PrefixNode, replica_id: ReplicaId) -> None:
        """Count a path as held on a replica."""
        node = leaf
        while node.parent is not None:
            node.num_refs += 1
            holders = node.holders
            if replica_id in holders:
                holders[replica_id] += 1
            else:
                holders[replica_id] = 1
                self.held_blocks[replica_id] += len(node.blocks)
            node = node.parent

    def release(self, leaf: PrefixNode, replica_id: ReplicaId) -> None:
        """Take a hold back."""
        node = leaf
        while node.parent is not None:
            holders = node.holders
            if holders[replica_id] == 1:
                del holders[replica_id]
                self.held_blocks[replica_id] -= len(node.blocks)
            else:
                holders[replica_id] -= 1
            node = node.parent
        self._unref(leaf, self.root)

    def num_held(self, leaf: PrefixNode, replica_id: ReplicaId) -> int:
        """Return how many leading blocks of a path anybody holds on a replica."""
        node = leaf
        while node.parent is not None:
            if replica_id in node.holders:
                return node.start + len(node.blocks)
            node = node.parent
        return 0

    def holders(self, leaf: PrefixNode) -> Iterable[ReplicaId]:
        """Return the replicas that hold most of a path; none where nobody holds any of it."""
        node = leaf
        while node.parent is not None and not node.holders:
            node = node.parent
        return node.holders.keys()

    def num_private(self, leaf: PrefixNode, replica_id: ReplicaId) -> int:
        """Return how many blocks of a path one hold alone keeps on a replica."""
        node, num = leaf, 0
        while node.parent is not None and node.holders.get(replica_id) == 1:
            num += len(node.blocks)
            node = node.parent
        return num

    def join(self, leaf: PrefixNode) -> None:
        """Make one node of those that end at ``leaf`` and share their fate."""
        parent = leaf.parent
        while (
            parent is not None
            and parent.parent is not None
            and parent.num_refs == leaf.num_refs
            and parent.holders == leaf.holders
        ):
            parent.blocks.extend(leaf.blocks)
            leaf.blocks = parent.blocks
            leaf.start = parent.start
            leaf.parent = parent.parent
            parent.parent.children[leaf.blocks[0]] = leaf
            parent = leaf.parent

    def check_invariants(self, leaves: Sequence[PrefixNode]) -> None:
        """Raise if the counts are not those of sessions and holds. O(nodes).

        Args:
            leaves: Where each session ends.

        Raises:
            InvariantError: Names what is broken.
        """
        held = [0] * len(self.held_blocks)
        ends: dict[int, int] = {}
        for leaf in leaves:
            ends[id(leaf)] = ends.get(id(leaf), 0) + 1

        def visit(node: PrefixNode) -> int:
            sessions = ends.get(id(node), 0)
            for first, child in node.children.items():
                if child.parent is not node or child.start != node.end or child.blocks[0] != first:
                    raise InvariantError("a node is not where its parent says")
                if any(child.holders[r] > node.holders.get(r, 0) for r in child.holders) and (
                    node.parent is not None
                ):
                    raise InvariantError("a node is held and its parent is not")
                sessions += visit(child)
            if node.parent is not None:
                for replica in node.holders:
                    held[replica] += len(node.blocks)
                if node.num_refs != sessions + sum(node.holders.values()):
                    raise InvariantError(
                        f"{node.num_refs} references to a node of {sessions} sessions and "
                        f"{sum(node.holders.values())} holds"
                    )
            return sessions

        visit(self.root)
        if held != self.held_blocks:
            raise InvariantError(f"held blocks are {held}, not {self.held_blocks}")

    def _is_own(self, leaf: PrefixNode) -> bool:
        return leaf.num_refs == 1 and leaf.parent is not None and not leaf.children

    def _node_ending_at(self, leaf: PrefixNode, position: int) -> PrefixNode:
        """Return the node of a path that ends at a position, cut there if need be."""
        node = leaf
        while node.parent is not None and node.start >= position:
            node = node.parent
        return self._cut(node, position - node.start) if position < node.end else node

    def _descend(self, base: PrefixNode, hashes: Sequence[int], num_blocks: int) -> PrefixNode:
        """Return the node where a chain that goes through ``base`` ends, new as far as need be."""
        node, position = base, base.end
        while position < num_blocks:
            child = node.children.get(hashes[position])
            if child is None:
                blocks = array("Q", hashes[position:num_blocks])
                child = PrefixNode(node, position, blocks)
                node.children[blocks[0]] = child
                return child
            length = common_length(child.blocks, 0, hashes, position, num_blocks)
            node = child if length == len(child.blocks) else self._cut(child, length)
            position += length
        return node

    def _cut(self, node: PrefixNode, length: int) -> PrefixNode:
        """Cut a node after some blocks; it stays the tail. Return the head."""
        parent = node.parent
        if parent is None:
            raise InvariantError("the root has no blocks to cut")
        head = PrefixNode(parent, node.start, node.blocks[:length])
        head.num_refs = node.num_refs
        head.holders = dict(node.holders)
        parent.children[head.blocks[0]] = head
        node.blocks = node.blocks[length:]
        node.start += length
        node.parent = head
        head.children[node.blocks[0]] = node
        return head

    def _unref(self, leaf: PrefixNode, base: PrefixNode) -> None:
        """Take a reference off every node from ``leaf`` up to ``base``, which keeps it."""
        node = leaf
        while node is not base:
            parent = node.parent
            if parent is None:
                raise InvariantError("a path does not lead through its base")
            node.num_refs -= 1
            if node.num_refs == 0:
                del parent.children[node.blocks[0]]
            node = parent


def leads_through(leaf: PrefixNode, node: PrefixNode) -> bool:
    """Return whether the path to ``leaf`` goes through ``node``, or ends there."""
    at = leaf
    while at.start > node.start and at.parent is not None:
        at = at.parent
    return at is node
