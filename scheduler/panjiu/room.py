"""Whose KV goes first when a replica needs room.

The worth of keeping an idle session's KV is what its loss would cost, computing it again or loading
it from the host, times how soon the session may come back, per block: seconds saved per
block-second. Room for a turn is worth the useful prefill it gets done per block-second. The lowest
worth is dropped first, and none that is above the turn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scheduler.cost import CostModel
from scheduler.ids import ReplicaId
from scheduler.panjiu.foresight import Foresight
from scheduler.panjiu.kv_ledger import KvLedger, KvState, SessionKv
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.rack import ReplicaFleet

RANKING_AGE_S = 5.0
"""Worth falls as gaps go on, by a few per cent in so long; then a ranking is made anew. Who became
idle since is worth most, and is not missed."""


class Victim(NamedTuple):
    """An idle session whose KV could be dropped.

    Attributes:
        worth: Seconds saved per block-second by keeping it.
        num_blocks: That nobody else holds.
        again_s: What its loss would cost, if it comes back.
    """

    worth: float
    num_blocks: int
    again_s: float
    kv: SessionKv


class RoomPlanner:
    """Ranks what could be dropped, replica by replica."""

    def __init__(
        self,
        ledger: KvLedger,
        cost: CostModel,
        foresight: Foresight,
        settings: PanjiuSettings,
        fleet: ReplicaFleet,
    ) -> None:
        self._ledger = ledger
        self._cost = cost
        self._foresight = foresight
        self._settings = settings
        self._block = fleet.block_size_tokens
        self._has_host = fleet.host_kv_tokens > 0
        self._rankings: list[tuple[float, list[Victim]]] = [
            (-RANKING_AGE_S, []) for _ in range(fleet.num_replicas)
        ]

    def victims(
        self, replica_id: ReplicaId, missing: int, worth: float, kv: SessionKv, now_s: float
    ) -> list[Victim] | None:
        """Return whom to drop for so many more blocks; None if none of them is worth less.

        Args:
            replica_id: That needs room.
            missing: Blocks.
            worth: Of the room, see the module.
            kv: Whose turn needs it; never a victim.
            now_s: Now.
        """
        chosen: list[Victim] = []
        for victim in self._ranking(replica_id, now_s):
            if missing <= 0:
                break
            if victim.worth > worth:
                return None
            other = victim.kv
            if other is not kv and other.state is KvState.IDLE and other.held_on == replica_id:
                chosen.append(victim)
                missing -= victim.num_blocks
        return chosen if missing <= 0 else None

    def victims_at_any_price(
        self, replica_id: ReplicaId, missing: int, kv: SessionKv, now_s: float, *, is_empty: bool
    ) -> list[Victim] | None:
        """Return whom to drop for a turn that has waited long enough: idle first, then held.

        Args:
            replica_id: That needs room.
            missing: Blocks.
            kv: Whose turn needs it.
            now_s: Now.
            is_empty: Whether no turn runs there, so that all that can be had is enough.
        """
        residents = self._ledger.residents[replica_id]
        idle = [self._victim(other, now_s) for other in residents if other.state is KvState.IDLE]
        held = [self._victim(other, now_s) for other in residents if other.state is KvState.HELD]
        chosen: list[Victim] = []
        for victim in (*sorted(idle, key=_worth), *held):
            if missing <= 0:
                break
            if victim.kv is not kv:
                chosen.append(victim)
                missing -= victim.num_blocks
        return chosen if missing <= 0 or is_empty else None

    def _ranking(self, replica_id: ReplicaId, now_s: float) -> Sequence[Victim]:
        at_s, ranking = self._rankings[replica_id]
        if now_s - at_s >= RANKING_AGE_S:
            ranking = [
                self._victim(kv, now_s)
                for kv in self._ledger.residents[replica_id]
                if kv.state is KvState.IDLE
            ]
            ranking.sort(key=_worth)
            self._spare_leases(ranking, now_s)
            self._rankings[replica_id] = now_s, ranking
        return ranking

    def _victim(self, kv: SessionKv, now_s: float) -> Victim:
        replica = kv.held_on
        if replica is None:
            return Victim(0.0, 0, 0.0, kv)
        held, block = kv.held_leaf.end, self._block
        private = self._ledger.tree.num_private(kv.held_leaf, replica)
        freed = private + kv.num_loose_blocks
        if not freed:
            return Victim(float("inf"), 0, 0.0, kv)
        again_s = self._cost.prefill_s((held - private) * block, max(1, held * block))
        if self._has_host:
            again_s = min(again_s, self._cost.transfer.load_s(private * block))
        rate = self._foresight.return_rate(kv.session, now_s)
        return Victim(again_s * rate / freed, freed, again_s, kv)

    def _spare_leases(self, ranking: list[Victim], now_s: float) -> None:
        """Take those with a lease out, the dearest first, as far as the quota goes."""
        quota = int(self._settings.lease_share * self._ledger.capacity_blocks)
        for victim in [v for v in reversed(ranking) if v.kv.lease_until_s > now_s]:
            if victim.num_blocks <= quota:
                quota -= victim.num_blocks
                ranking.remove(victim)


def _worth(victim: Victim) -> float:
    return victim.worth
