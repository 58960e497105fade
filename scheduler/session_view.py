"""A session as others may look at it: a value of one moment, which changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.events import GapHint
from scheduler.ids import ReplicaId, SessionId


class SessionPhase(StrEnum):
    """What a session does."""

    RUNNING = "running"
    HELD = "held"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class SessionView:
    """What the scheduler knows of a session.

    Attributes:
        session_id: Which.
        phase: Whether a turn of it runs, all its turns are held, or it has none.
        home: The replica of its latest dispatch; None before the first.
        context_tokens: Of its latest turn.
        num_turns_ended: So far.
        last_ended_s: When its latest turn ended; before the first, when it arrived.
        gap: What is known of the gap it is in.
    """

    session_id: SessionId
    phase: SessionPhase
    home: ReplicaId | None
    context_tokens: int
    num_turns_ended: int
    last_ended_s: float
    gap: GapHint
