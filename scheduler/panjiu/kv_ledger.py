"""Where every session's KV lies, and what room is left: the policy's book of the rack's HBM."""

from __future__ import annotations

from enum import Enum, auto

from scheduler.errors import InvariantError
from scheduler.ids import ReplicaId
from scheduler.load_order import LoadOrder
from scheduler.prefix_tree import PrefixNode, PrefixTree, leads_through
from scheduler.rack import ReplicaFleet
from scheduler.session import Session


class KvState(Enum):
    """What a session's KV waits for."""

    IDLE = auto()
    """The session's return: it may be dropped."""
    HELD = auto()
    """A place for the session's turn."""
    RUNNING = auto()
    """Nothing: a turn uses it, or is about to."""


class SessionKv:
    """A session's KV.

    Attributes:
        leaf: Where its latest context ends in the tree.
        held_on: The replica that holds its KV; None where it has none, or lost it.
        held_leaf: Up to where.
        num_loose_blocks: Room set aside there beyond it, for what the turn under way generates.
        num_pauses: Turns of it that were held for over a second.
        solo_s: What its ended turns would have taken alone.
        ready_s: When what is on its way there will have arrived.
        left_on: The replica that held it last, where it may still be though nobody holds it.
        host_on: The replica behind which it may be in host memory: where it was computed last.
        lease_until_s: Until when its user asked that it be kept.
    """

    __slots__ = (
        "held_leaf",
        "held_on",
        "host_on",
        "leaf",
        "lease_until_s",
        "left_on",
        "num_loose_blocks",
        "num_pauses",
        "ready_s",
        "session",
        "solo_s",
        "state",
    )

    def __init__(self, session: Session, root: PrefixNode) -> None:
        self.session = session
        self.leaf = root
        self.held_on: ReplicaId | None = None
        self.held_leaf = root
        self.num_loose_blocks = 0
        self.state = KvState.IDLE
        self.num_pauses = 0
        self.solo_s = 0.0
        self.ready_s = 0.0
        self.left_on: ReplicaId | None = None
        self.host_on: ReplicaId | None = None
        self.lease_until_s = 0.0

    @property
    def num_held_blocks(self) -> int:
        """Leading blocks of its context with KV."""
        return self.held_leaf.end if self.held_on is not None else 0


class KvLedger:
    """Room and residents of every replica.

    Args:
        fleet: The replicas.
        reserve: Share of each that is never planned with: what plans don't know of.

    Invariant: a session is among the residents of the replica that holds its KV, and of no other;
        ``used_blocks`` are the distinct blocks held and those set aside.
    """

    __slots__ = ("capacity_blocks", "residents", "tree", "used_blocks")

    def __init__(self, fleet: ReplicaFleet, reserve: float) -> None:
        num = fleet.num_replicas
        self.tree = PrefixTree(num)
        self.capacity_blocks = int(fleet.max_context_tokens // fleet.block_size_tokens)
        self.capacity_blocks -= int(self.capacity_blocks * reserve)
        self.residents: list[dict[SessionKv, None]] = [{} for _ in range(num)]
        self.used_blocks = LoadOrder(num)

    def free_blocks(self, replica_id: ReplicaId) -> int:
        """Return the room on a replica; below zero where a context was too long to plan with."""
        return self.capacity_blocks - self.used_blocks.loads[replica_id]

    def hold(
        self, kv: SessionKv, leaf: PrefixNode, replica_id: ReplicaId, num_loose_blocks: int
    ) -> None:
        """Have a replica alone hold a session's context up to a leaf, and set room aside."""
        tree = self.tree
        before, before_leaf = kv.held_on, kv.held_leaf
        held = tree.held_blocks[replica_id]
        tree.hold(leaf, replica_id)
        gained = tree.held_blocks[replica_id] - held
        if before is not None:
            self._let_go(before, before_leaf, kv)
        self.used_blocks.add(replica_id, gained + num_loose_blocks)
        kv.held_on, kv.held_leaf, kv.num_loose_blocks = replica_id, leaf, num_loose_blocks
        self.residents[replica_id][kv] = None
        tree.join(leaf)

    def release(self, kv: SessionKv) -> None:
        """Have nobody hold a session's KV."""
        replica = kv.held_on
        if replica is None:
            return
        leaf = kv.held_leaf
        kv.held_on = None
        kv.held_leaf = self.tree.root
        self._let_go(replica, leaf, kv)
        kv.num_loose_blocks = 0

    def set_loose(self, kv: SessionKv, num_blocks: int) -> None:
        """Set other room aside for what a session generates."""
        if kv.held_on is not None:
            self.used_blocks.add(kv.held_on, num_blocks - kv.num_loose_blocks)
            kv.num_loose_blocks = num_blocks

    def truncate(self, kv: SessionKv) -> None:
        """Let go of what is held beyond where the session's history was replaced."""
        replica = kv.held_on
        if replica is None:
            return
        tree, node = self.tree, kv.held_leaf
        while node.parent is not None and not leads_through(kv.leaf, node):
            node = node.parent
        if node is kv.held_leaf:
            return
        before = tree.held_blocks[replica]
        if node.parent is not None:
            tree.hold(node, replica)
        tree.release(kv.held_leaf, replica)
        self.used_blocks.add(replica, tree.held_blocks[replica] - before)
        kv.held_leaf = node

    def forget(self, kv: SessionKv) -> None:
        """Forget a session."""
        self.release(kv)
        self.tree.forget(kv.leaf)
        kv.leaf = self.tree.root

    def check_invariants(self, kvs: list[SessionKv]) -> None:
        """Raise if the book contradicts itself. O(nodes + sessions).

        Raises:
            InvariantError: Names what is broken.
        """
        self.tree.check_invariants([kv.leaf for kv in kvs])
        for replica, residents in enumerate(self.residents):
            loose = sum(kv.num_loose_blocks for kv in residents)
            if any(kv.held_on != replica for kv in residents):
                raise InvariantError(f"replica {replica} has residents that lie elsewhere")
            used = self.tree.held_blocks[replica] + loose
            if used != self.used_blocks.loads[replica]:
                raise InvariantError(
                    f"replica {replica} uses {used} blocks, not {self.used_blocks.loads[replica]}"
                )

    def _let_go(self, replica: ReplicaId, leaf: PrefixNode, kv: SessionKv) -> None:
        tree = self.tree
        held = tree.held_blocks[replica]
        tree.release(leaf, replica)
        lost = held - tree.held_blocks[replica]
        self.used_blocks.add(replica, -lost - kv.num_loose_blocks)
        del self.residents[replica][kv]
