"""Sessions in a line each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journaling.rows import StepState


class SessionState(Enum):
    """Of a session as a whole."""

    RUNNING = "running"  # a step is under way, or was when the program ended
    WAITING = "waiting"  # for its program to tell it something
    FAILED = "failed"
    CLOSED = "closed"

    @classmethod
    def of(cls, last_step: str | None, *, is_closed: bool) -> SessionState:
        """Return what a session does whose last step, if there is one, is in a state."""
        if is_closed:
            return cls.CLOSED
        if last_step == StepState.RUNNING.value:
            return cls.RUNNING
        if last_step == StepState.FAILED.value:
            return cls.FAILED
        return cls.WAITING


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session in a line.

    Attributes:
        key: Its key.
        session_id: Its id, which others may have had at other times.
        agent: Its agent's name.
        model: Which it asks.
        state: What it does.
        num_steps: Begun.
        num_turns: The model's messages.
        usage: Of these.
        parent_id: The session that started it.
        place: The tool call in which it was opened, or nothing.
        opened_epoch_s, last_epoch_s: When it began, and when something last happened.
    """

    key: int
    session_id: str
    agent: str
    model: str
    state: SessionState
    num_steps: int
    num_turns: int
    usage: Usage
    parent_id: str | None
    place: str
    opened_epoch_s: float
    last_epoch_s: float

    @classmethod
    def of(cls, key: int, *fields: Any) -> Self:  # noqa: ANN401 - numbers, or texts of them
        """Return what a store has of a session.

        Args:
            key: Its key.
            fields: Id, agent, model, when it was closed or None, the state of its last step or
                None, numbers of steps and turns, three numbers of tokens, the parent's id, place,
                and both times, as a store gives them.
        """
        session_id, agent, model, closed, step, num_steps, num_turns, *tokens = fields[:10]
        parent_id, place, opened_s, last_s = fields[10:]
        return cls(
            key,
            session_id,
            agent,
            model,
            SessionState.of(step, is_closed=closed is not None),
            int(num_steps or 0),
            int(num_turns or 0),
            Usage(*(int(number or 0) for number in tokens)),
            parent_id,
            place,
            float(opened_s),
            float(last_s),
        )
