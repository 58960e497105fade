"""The seam between sessions and what of them outlives the process.

A session's life is a row of steps, each of which asks the model: runs and compactions. A journal is
told of every message of a step once it is there, and in a later life gives them back: the program
runs again from its beginning, and what is recorded is not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Usage


class StepKind(Enum):
    """What a step does."""

    RUN = "run"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class StepBegun:
    """A step at its beginning.

    Attributes:
        kind: What it does.
        told: What the agent is told.
        num_kept: Messages of the session's conversation, as it was when the step before ended (for
            the first: as the session was opened), that are still there ...
        added: ... and those that came after them since, by rewinding, adopting, compacting.
    """

    kind: StepKind
    told: str
    num_kept: int
    added: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of a step from an earlier life.

    Attributes:
        messages: The model's, and the results of finished tool calls, as they came.
        usages: Of its model calls, one for each message of the model's.
        ended: Whether the step came to its end.
    """

    messages: Sequence[Message] = ()
    usages: Sequence[Usage] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session at its beginning.

    Attributes:
        session_id: Whose.
        agent: Its agent's name.
        model: Which it asks.
        parent_id: The session that started it.
        forked_from: The session whose conversation it begins with.
        messages: That it begins with.
    """

    session_id: str
    agent: str
    model: str
    parent_id: str | None = None
    forked_from: str | None = None
    messages: Sequence[Message] = field(default=())


class StepLog(Protocol):
    """Takes down one step."""

    @property
    def recorded(self) -> Recorded:
        """What was there when the step began again."""
        ...

    async def add(self, message: Message, usage: Usage | None = None) -> None:
        """Take down a message of the model's, with what it cost, or a tool's result.

        Returns once it is safe.

        Raises:
            JournalError: It could not be written; the step must not go on.
        """
        ...

    async def ended(self) -> None:
        """Take down that it came to its end. Raises as ``add``."""
        ...

    async def failed(self, error: Exception) -> None:
        """Take down that it came to nothing. Raises as ``add``."""
        ...


class SessionJournal(Protocol):
    """Takes down one session."""

    async def step(self, begun: StepBegun) -> StepLog:
        """Begin the next step, or give back the one of an earlier life.

        Raises:
            JournalError: It could not be written, or the program does something else than in its
                earlier life. A step that failed then, and was not the last one, fails again.
        """
        ...

    async def closed(self) -> None:
        """Take down that the session is over. Raises as ``step``."""
        ...


class Journal(Protocol):
    """Takes down sessions."""

    async def session(self, opened: SessionOpened) -> SessionJournal:
        """Open a session, or go on with the one of that id.

        Raises:
            JournalError: It could not be written, the session is open already, or it was another
                agent's.
        """
        ...


class _NoStep:
    recorded = Recorded()

    async def add(self, message: Message, usage: Usage | None = None) -> None:
        pass

    async def ended(self) -> None:
        pass

    async def failed(self, error: Exception) -> None:
        pass


class _NoSession:
    async def step(self, begun: StepBegun) -> StepLog:  # noqa: ARG002 - protocol
        return _NoStep()

    async def closed(self) -> None:
        pass


class NoJournal:
    """Forgets everything."""

    async def session(self, opened: SessionOpened) -> SessionJournal:  # noqa: ARG002 - protocol
        """Return what forgets one session."""
        return _NoSession()
