"""Whose KV goes first when a replica needs room.

The worth of keeping an idle session's KV is what computing it again would cost, times how soon the
session may come back, per block: seconds saved per block-second. That the host may have a copy
counts for nothing: it evicts by itself, and who relied on it would lose both. Room for a turn is
worth the useful prefill it gets done per block-second. The lowest worth is dropped first, and none
that is above the turn's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from scheduler.cost import CostModel
from scheduler.events import GapHint
from scheduler.ids import ReplicaId
from scheduler.panjiu.foresight import Foresight
from scheduler.panjiu.kv_ledger import KvLedger, KvState, SessionKv
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.rack import ReplicaFleet

RANKING_AGE_S, OLD_RANKING_S = 5.0, 30.0
ASKED_PER_ENTRY, OLD_S_PER_ENTRY = 4, 2.0
"""A ranking is made anew after so long, if it was asked for so many times as often as it has
entries; else once it is old, which is later the longer it is. So neither an asking nor a second
costs more where there are more sessions. Who became idle since is worth most, and is not missed."""

RATED_SHARE = 0.25
"""What a session's KV is worth changes little while its gap grows by this share, less than a bin of
the gap model, so it is not rated again before."""


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


class _Rated(NamedTuple):
    """A victim, and what it was rated by.

    Attributes:
        idle_since_s: When the gap began.
        until_s: When it is to be rated again.
    """

    victim: Victim
    idle_since_s: float
    gap: GapHint
    until_s: float


class _Ranking:
    """The idle sessions of a replica that may be dropped, the least worth first.

    Invariant: ``worths`` rise; ``blocks_upto`` has the sum of the blocks of as many victims.
    """

    __slots__ = ("blocks_upto", "leased", "made_s", "num_asked", "rated", "victims", "worths")

    def __init__(self) -> None:
        self.num_asked = 0
        self.made_s = -OLD_RANKING_S
        self.victims: list[Victim] = []
        self.worths: list[float] = []
        self.blocks_upto = [0]
        self.leased: list[Victim] = []
        self.rated: dict[SessionKv, _Rated] = {}

    def rank(self, victims: list[Victim]) -> None:
        self.victims = victims
        self.worths = [victim.worth for victim in victims]
        self.blocks_upto = list(accumulate((v.num_blocks for v in victims), initial=0))


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
        self._rankings = [_Ranking() for _ in range(fleet.num_replicas)]

    def victims(
        self, replica_id: ReplicaId, missing: int, worth: float, kv: SessionKv, now_s: float
    ) -> list[Victim] | None:
        """Return whom to drop for so many more blocks; None if none of them is worth less.

        O(log residents) where there are too few, as a rule.

        Args:
            replica_id: That needs room.
            missing: Blocks.
            worth: Of the room, see the module.
            kv: Whose turn needs it; never a victim.
            now_s: Now.
        """
        ranking = self._ranking(replica_id, now_s)
        num_cheap = bisect_right(ranking.worths, worth)
        if ranking.blocks_upto[num_cheap] < missing:
            return None
        chosen: list[Victim] = []
        for victim in ranking.victims[:num_cheap]:
            if missing <= 0:
                break
            if victim.kv is not kv and _is_idle_on(victim.kv, replica_id):
                chosen.append(victim)
                missing -= victim.num_blocks
        return chosen if missing <= 0 else None

    def at_any_price(
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
        ranking = self._ranking(replica_id, now_s)
        chosen: list[Victim] = []
        for victim in self._all_droppable(ranking, replica_id, now_s):
            if missing <= 0:
                break
            if victim.kv is not kv:
                chosen.append(victim)
                missing -= victim.num_blocks
        return chosen if missing <= 0 or is_empty else None

    def _all_droppable(
        self, ranking: _Ranking, replica_id: ReplicaId, now_s: float
    ) -> Iterator[Victim]:
        """Yield whose KV no turn runs with: as ranked, idle since, leased, held."""
        yield from (v for v in ranking.victims if _is_idle_on(v.kv, replica_id))
        ranked = {victim.kv for victim in (*ranking.victims, *ranking.leased)}
        others = [
            self._victim(kv, now_s)
            for kv in self._ledger.residents[replica_id]
            if kv.state is KvState.HELD or (kv.state is KvState.IDLE and kv not in ranked)
        ]
        yield from sorted([v for v in others if v.kv.state is KvState.IDLE], key=_worth)
        yield from (v for v in ranking.leased if _is_idle_on(v.kv, replica_id))
        yield from (v for v in others if v.kv.state is KvState.HELD)

    def _ranking(self, replica_id: ReplicaId, now_s: float) -> _Ranking:
        ranking = self._rankings[replica_id]
        ranking.num_asked += 1
        num_rated, age_s = len(ranking.rated), now_s - ranking.made_s
        is_worn = ranking.num_asked >= ASKED_PER_ENTRY * num_rated
        if age_s >= (RANKING_AGE_S if is_worn else OLD_RANKING_S + OLD_S_PER_ENTRY * num_rated):
            ranking.made_s, ranking.num_asked = now_s, 0
            ranking.rated = {
                kv: self._rated(kv, ranking.rated.get(kv), now_s)
                for kv in self._ledger.residents[replica_id]
                if kv.state is KvState.IDLE
            }
            victims = sorted([rated.victim for rated in ranking.rated.values()], key=_worth)
            ranking.leased = self._leased(victims, now_s)
            spared = {victim.kv for victim in ranking.leased}
            ranking.rank([v for v in victims if v.kv not in spared] if spared else victims)
        return ranking

    def _rated(self, kv: SessionKv, before: _Rated | None, now_s: float) -> _Rated:
        session = kv.session
        since_s, gap = session.last_ended_s, session.gap
        if before is not None and (
            now_s < before.until_s and before.idle_since_s == since_s and before.gap is gap
        ):
            return before
        until_s = now_s + max(RANKING_AGE_S, RATED_SHARE * (now_s - since_s))
        return _Rated(self._victim(kv, now_s), since_s, gap, until_s)

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
        rate = self._foresight.return_rate(kv.session, now_s)
        return Victim(again_s * rate / freed, freed, again_s, kv)

    def _leased(self, victims: list[Victim], now_s: float) -> list[Victim]:
        """Return those with a lease, the dearest first, as far as the quota goes."""
        quota = int(self._settings.lease_share * self._ledger.capacity_blocks)
        leased: list[Victim] = []
        for victim in [v for v in reversed(victims) if v.kv.lease_until_s > now_s]:
            if victim.num_blocks <= quota:
                quota -= victim.num_blocks
                leased.append(victim)
        return leased


def _is_idle_on(kv: SessionKv, replica_id: ReplicaId) -> bool:
    return kv.state is KvState.IDLE and kv.held_on == replica_id


def _worth(victim: Victim) -> float:
    return victim.worth
