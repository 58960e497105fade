"""Has sessions' KV lie where it shall: what the book says, replicas are told, and tenants pay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scheduler.ids import ReplicaId, TenantId
from scheduler.panjiu.kv_ledger import KvLedger, SessionKv
from scheduler.panjiu.links import Links
from scheduler.panjiu.room import Victim
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.panjiu.tenant_shares import TenantShares
from scheduler.prefix_tree import PrefixNode
from scheduler.rack import Rack, ReplicaFleet
from scheduler.session import Turn


class KvCustody:
    """Moves KV and gives it up.

    Args:
        fleet: The replicas.
        ledger: Where KV lies.
        links: What it is moved over.
        shares: Whose it is.
        settings: The policy's.

    Invariant: a tenant is counted with the blocks that its sessions hold in the ledger.
    """

    __slots__ = ("_block", "_ledger", "_links", "_settings", "_shares")

    def __init__(
        self,
        fleet: ReplicaFleet,
        ledger: KvLedger,
        links: Links,
        shares: TenantShares,
        settings: PanjiuSettings,
    ) -> None:
        self._block = fleet.block_size_tokens
        self._ledger = ledger
        self._links = links
        self._shares = shares
        self._settings = settings

    def follow(self, turn: Turn, kv: SessionKv, now_s: float) -> None:
        """Bring the tree up to the turn's prompt; a history that was replaced is let go of."""
        hashes, num_blocks = self.chain(turn)
        kv.leaf = self._ledger.tree.extend(kv.leaf, hashes, num_blocks)
        num_held = kv.num_held_blocks
        self._ledger.truncate(kv)
        self._shares.change(turn.session.tenant_id, kv.num_held_blocks - num_held, now_s)

    def chain(self, turn: Turn) -> tuple[Sequence[int], int]:
        """Return hashes of a turn's prompt, and how many; its own where nobody told them."""
        num_blocks = turn.num_prompt_tokens // self._block
        if turn.block_hashes:
            return turn.block_hashes, min(num_blocks, len(turn.block_hashes))
        first = (1 << 63) + (turn.session.order << 32)
        return range(first, first + num_blocks), num_blocks

    def settle(
        self, kv: SessionKv, leaf: PrefixNode, replica: ReplicaId, num_loose: int, rack: Rack
    ) -> None:
        """Have a replica alone hold a session's context; what lies elsewhere is pulled there."""
        source, num_held = kv.held_on, kv.num_held_blocks
        num_there = self._ledger.tree.num_held(leaf, replica)
        self._shares.change(kv.session.tenant_id, leaf.end - num_held, rack.now_s)
        self._ledger.hold(kv, leaf, replica, max(0, num_loose))
        kv.left_on = replica
        if source is None or source == replica:
            kv.host_on = replica
            return
        if num_held > num_there and self._links.reach(source, replica):
            num_tokens = (num_held - num_there) * self._block
            kv.ready_s = self._links.book(source, replica, num_tokens, rack.now_s)
            rack.pull(kv.session, source, replica, kv.ready_s)
        rack.release(kv.session, source)

    def drop(self, victim: Victim, rack: Rack) -> None:
        """Give up a session's KV, or move it where there is room for it."""
        kv = victim.kv
        source = kv.held_on
        if source is None:
            return
        session, target = kv.session, self._ledger.used_blocks.least()
        if (
            self._links.reach(source, target)
            and victim.num_blocks < self._ledger.free_blocks(target)
            and self._links.wait_s(source, target, rack.now_s) < self._settings.link_lead_s
        ):
            self.settle(kv, kv.held_leaf, target, kv.num_loose_blocks, rack)
            return
        self._shares.change(session.tenant_id, -kv.num_held_blocks, rack.now_s)
        self._ledger.release(kv)
        rack.release(session, source)

    def lose(self, replica_id: ReplicaId, now_s: float) -> None:
        """Take note that a replica lost what it held."""
        for kv in list(self._ledger.residents[replica_id]):
            self._shares.change(kv.session.tenant_id, -kv.num_held_blocks, now_s)
            self._ledger.release(kv)
            kv.ready_s = now_s

    def forget(self, kv: SessionKv, rack: Rack) -> None:
        """Give up a session's KV for good."""
        if kv.held_on is not None:
            rack.release(kv.session, kv.held_on)
            self._shares.change(kv.session.tenant_id, -kv.num_held_blocks, rack.now_s)
        self._ledger.forget(kv)

    def check_invariants(self, kvs: Iterable[SessionKv]) -> None:
        """Raise if tenants are counted with other blocks than they hold.

        Raises:
            InvariantError: Gives both counts.
        """
        held: dict[TenantId, int] = {}
        for kv in kvs:
            tenant_id = kv.session.tenant_id
            held[tenant_id] = held.get(tenant_id, 0) + kv.num_held_blocks
        self._shares.check_invariants(held)
