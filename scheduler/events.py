"""What the scheduler is told. Frozen values; time comes beside them."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.ids import SessionId, TurnId


@dataclass(frozen=True, slots=True)
class TurnArrived:
    """A session wants a model call. The first turn of an unknown session opens it.

    Attributes:
        num_prompt_tokens: The whole context.
        num_output_tokens: The most the call may generate.
        parent_id: The session that started this one, for a sub-agent's turns.
    """

    turn_id: TurnId
    session_id: SessionId
    num_prompt_tokens: int
    num_output_tokens: int
    parent_id: SessionId | None = None


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A dispatched turn is over: finished, aborted or failed.

    Attributes:
        num_context_tokens: Prompt and output as far as it got.
    """

    turn_id: TurnId
    num_context_tokens: int


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session will not return; its KV is worth nothing any more."""

    session_id: SessionId


Event = TurnArrived | TurnEnded | SessionClosed
