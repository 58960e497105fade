"""A session as the scheduler knows it: where it last ran and how much KV it left there."""

from __future__ import annotations

from scheduler.ids import ReplicaId, SessionId


class Session:
    """One agent's growing context.

    Invariant: ``home`` is None exactly until the first dispatch. A session with active turns is
        running; without, it is in a tool gap.
    """

    __slots__ = ("closed", "context_tokens", "home", "num_active_turns", "parent_id", "session_id")

    def __init__(self, session_id: SessionId, parent_id: SessionId | None) -> None:
        self.session_id = session_id
        self.parent_id = parent_id
        self.home: ReplicaId | None = None  # the replica of the latest dispatch
        self.context_tokens = 0  # of the latest turn: what its KV at home amounts to
        self.num_active_turns = 0
        self.closed = False  # forgotten once no turn is active, unless another arrives
