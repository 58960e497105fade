"""Sessions and steps as journals keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.journal import StepBegun, StepKind
from agent_runtime.sdk.journaling.recorded_errors import RecordedError
from agent_runtime.sdk.journaling.texts import as_json, as_text


class StepState(Enum):
    """How far a step is.

    running -> ended | failed | cancelled; failed -> running, when a later life tries again.
    """

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class StepRow:
    """A step as it is kept.

    Attributes:
        number: In its session, from 0.
        kind, told, members, num_kept, added: As begun; the last but one is a number of messages,
            members and added are JSON.
        state: How far it is.
        error: Why it failed.
    """

    number: int
    kind: str
    told: str
    members: str
    num_kept: int
    added: str
    state: StepState
    error: RecordedError | None = None

    @classmethod
    def of(cls, number: int, begun: StepBegun) -> StepRow:
        """Return the row of a step that begins."""
        return cls(
            number,
            begun.kind.value,
            as_text(begun.told),
            as_json(dict(begun.members)),
            begun.num_kept,
            as_json(list(begun.added)),
            StepState.RUNNING,
        )

    def begun(self) -> StepBegun:
        """Return what it began with."""
        return StepBegun(
            StepKind(self.kind),
            self.told,
            self.num_kept,
            json.loads(self.added),
            json.loads(self.members),
        )


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as it is kept, as far as a later life has to do with it.

    Attributes:
        agent: Its agent's name.
        parent_id: The id of the session that started it.
        num_kept, added: What it begins with; JSON.
        left_at: When its program last left it with an error, in the order of all keys.
        is_closed: Whether it is over.
        is_last: Whether it is the last of its id at its place.
    """

    agent: str
    parent_id: str | None
    num_kept: int
    added: str
    left_at: int | None
    is_closed: bool
    is_last: bool


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a session begins with.

    Attributes:
        parent: The key of the session that it is a fork of, or None if it is no fork.
        forked_after: How many steps that had begun.
        num_kept: So many messages of the parent's conversation ...
        added: ... and these.
    """

    parent: int | None
    forked_after: int
    num_kept: int
    added: Sequence[Message]
