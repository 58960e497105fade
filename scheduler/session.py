"""A session and its turns as the scheduler knows them, whatever the policy."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.events import NO_HINT, GapHint, TurnArrived
from scheduler.ids import ReplicaId, SessionId, TenantId


class Session:
    """One agent's growing context.

    Invariant: ``home`` is None exactly until the first dispatch. A session with active turns is
        waiting or running; without, it is in a tool gap.
    """

    __slots__ = (
        "arrived_s",
        "closed",
        "context_tokens",
        "gap",
        "home",
        "last_ended_s",
        "num_active_turns",
        "num_turns_ended",
        "order",
        "parent_id",
        "service_s",
        "session_id",
        "tenant_id",
        "wait_s",
    )

    def __init__(
        self,
        session_id: SessionId,
        parent_id: SessionId | None,
        tenant_id: TenantId,
        arrived_s: float,
        order: int,
    ) -> None:
        self.session_id = session_id
        self.parent_id = parent_id
        self.tenant_id = tenant_id
        self.arrived_s = arrived_s
        self.order = order  # of arrival among all sessions: breaks ties
        self.home: ReplicaId | None = None  # the replica of the latest dispatch
        self.context_tokens = 0  # of the latest turn: what its KV at home amounts to
        self.num_active_turns = 0  # held or dispatched
        self.num_turns_ended = 0
        self.service_s = 0.0  # from dispatch to end, all ended turns
        self.wait_s = 0.0  # from arrival to dispatch, all dispatched turns
        self.last_ended_s = arrived_s
        self.gap: GapHint = NO_HINT
        self.closed = False  # forgotten once no turn is active, unless another arrives


class Turn:
    """A model call that has arrived and not ended.

    Attributes:
        replica_id: Where it was dispatched; None while it is held.
        block_hashes, avoid: See ``TurnArrived``.
        num_expected_cached_tokens: Of its prompt, by the policy's reckoning at dispatch.
    """

    __slots__ = (
        "arrived_s",
        "avoid",
        "block_hashes",
        "deadline_s",
        "dispatched_s",
        "is_prefilled",
        "num_expected_cached_tokens",
        "num_output_tokens",
        "num_prompt_tokens",
        "priority",
        "replica_id",
        "session",
        "turn_id",
    )

    def __init__(self, arrived: TurnArrived, session: Session, now_s: float) -> None:
        self.turn_id = arrived.turn_id
        self.session = session
        self.arrived_s = now_s
        self.num_prompt_tokens = arrived.num_prompt_tokens
        self.num_output_tokens = arrived.num_output_tokens
        self.block_hashes: Sequence[int] = arrived.block_hashes
        self.priority = arrived.priority
        self.deadline_s = arrived.deadline_s
        self.avoid = arrived.avoid
        self.replica_id: ReplicaId | None = None
        self.dispatched_s = now_s
        self.num_expected_cached_tokens = 0
        self.is_prefilled = False
