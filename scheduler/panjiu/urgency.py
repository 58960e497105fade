"""In which order held turns go: by the work they need, until their patience runs out."""

from __future__ import annotations

from scheduler.cost import CostModel
from scheduler.events import GapCause
from scheduler.panjiu.foresight import Foresight
from scheduler.panjiu.kv_ledger import SessionKv
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.panjiu.tenant_shares import TenantShares
from scheduler.rack import ReplicaFleet
from scheduler.session import Turn

CRITICAL = 0.5
"""Weight of a turn whose session has a parent that waits for it."""

URGENT = 0.25
"""Weight of a turn whose session would miss its deadline if it waited for much longer."""

FUTURE = 0.1
"""Weight of the work of turns to come, where it is known, beside that of the turn at hand. With
more, newcomers with little ahead of them go before those who hold KV, and everybody is slower."""


class Urgency:
    """Weighs held turns.

    Args:
        fleet: The replicas.
        cost: What their work costs.
        foresight: What is thought of the turns to come.
        shares: Of the tenants.
        settings: The policy's.
    """

    __slots__ = ("_block", "_cost", "_foresight", "_settings", "_shares")

    def __init__(
        self,
        fleet: ReplicaFleet,
        cost: CostModel,
        foresight: Foresight,
        shares: TenantShares,
        settings: PanjiuSettings,
    ) -> None:
        self._block = fleet.block_size_tokens
        self._cost = cost
        self._foresight = foresight
        self._shares = shares
        self._settings = settings

    def of(
        self, turn: Turn, kv: SessionKv, parent: SessionKv | None, now_s: float
    ) -> tuple[float, float]:
        """Return a turn's weight, the smaller the sooner, and when it goes before everybody.

        Args:
            turn: To be held.
            kv: Of its session.
            parent: Of the session that started that one, if it is known.
            now_s: Now.
        """
        patience = self._settings.patience
        num_cached = min(kv.num_held_blocks * self._block, turn.num_prompt_tokens - 1)
        weight = self._cost.prefill_s(num_cached, turn.num_prompt_tokens) + self._left_s(turn)
        weight *= self._shares.excess(turn.session.tenant_id, now_s) * 2.0**turn.priority
        if parent is not None and parent.session.gap.cause is GapCause.CHILDREN:
            weight *= CRITICAL
        whole_s = self._cost.prefill_s(0, turn.num_prompt_tokens) + kv.solo_s
        due_s = now_s + patience * whole_s
        if turn.deadline_s is not None:
            if turn.deadline_s - now_s < patience * weight:
                weight *= URGENT
            due_s = min(due_s, turn.deadline_s)
        if kv.num_pauses >= self._settings.most_pauses:
            due_s = now_s
        return weight, due_s

    def _left_s(self, turn: Turn) -> float:
        """Return what the known future of a turn's session counts; nothing where none is known."""
        num_new, num_output = self._foresight.left(turn.session)
        if not num_new + num_output:
            return 0.0
        prompt = turn.num_prompt_tokens
        prefill_s = self._cost.prefill_s(prompt, prompt + num_new)
        return FUTURE * (prefill_s + num_output * self._cost.decode_s)
