"""The seam between sessions and what of them outlives the process.

A session's life is a row of steps, each of which asks the model: runs and compactions. A journal is
told of every message of a step once it is there, and in a later life gives them back: the program
runs again from its beginning, and what is recorded is not done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Usage


class StepKind(Enum):
    """What a step does."""

    RUN = "run"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class StepBegun:
    """A step at its beginning.

    A run that ended leaves the conversation as it began with, what the agent was told, and all
    messages of the step, tool results in the order of their calls. Other steps leave it as it was:
    what a compaction comes to is told with the next step.

    Attributes:
        kind: What it does.
        told: What the agent is told.
        num_kept: Messages of the session's conversation, as the last run that ended left it (before
            the first: as the session was opened), that are still there ...
        added: ... and those that came after them since, by rewinding, adopting, compacting.
        members: More of its requests, e.g. the format of a typed answer.
    """

    kind: StepKind
    told: str
    num_kept: int
    added: Sequence[Message]
    members: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of a step from an earlier life.

    Attributes:
        messages: The model's, the results of finished tool calls, and what the model was told to
            answer again, as they came.
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
        is_fork: Whether it begins with the parent's conversation.
        num_kept: For a fork: messages of the parent's conversation, as its last run that ended left
            it (before the first: as the parent was opened), that it begins with ...
        added: ... and those after them. Of any other session: all that it begins with.
        place: The tool call in which it was opened, or nothing. Finished calls are not repeated in
            a later life, so sessions of one id are told apart by it.
    """

    session_id: str
    agent: str
    model: str
    parent_id: str | None = None
    is_fork: bool = False
    num_kept: int = 0
    added: Sequence[Message] = ()
    place: str = ""


class StepLog(Protocol):
    """Takes down one step."""

    @property
    def recorded(self) -> Recorded:
        """What was there when the step began again."""
        ...

    async def add(self, message: Message, usage: Usage | None = None) -> None:
        """Take down a message of the model's, with what it cost, or another one of the step's.

        Returns once it is safe.

        Raises:
            JournalError: It could not be written; the step must not go on.
        """
        ...

    async def ended(self) -> None:
        """Take down that it came to its end; it is safe no later than what comes after it.

        Raises:
            JournalError: The journal can't be written.
        """
        ...

    async def failed(self, error: Exception) -> None:
        """Take down that it came to nothing. As ``ended``."""
        ...


class SessionJournal(Protocol):
    """Takes down one session."""

    async def step(self, begun: StepBegun) -> StepLog:
        """Begin the next step, or give back the one of an earlier life.

        A step that neither ended nor failed when the next one begins was cancelled.

        Raises:
            JournalError: It could not be written, or the program does something else than in its
                earlier life.
            AgentError: It failed or was cancelled in the earlier life, and the program went on from
                that, as it does now.
        """
        ...

    async def left(self, *, for_good: bool) -> None:
        """Take down that nobody has it open any more.

        Args:
            for_good: Whether it is over; else an error ended the program's part of it, which a
                later life may go on with.

        Raises:
            JournalError: It could not be written, or there was more of it in the earlier life.
        """
        ...


class Journal(Protocol):
    """Takes down sessions."""

    async def session(self, opened: SessionOpened) -> SessionJournal:
        """Open a session, or go on with the one of that id.

        An id may be opened again once it was left: that is another session.

        Raises:
            JournalError: It could not be written, the session is open already, or it was another
                one's.
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

    async def left(self, *, for_good: bool) -> None:
        pass


class NoJournal:
    """Forgets everything."""

    async def session(self, opened: SessionOpened) -> SessionJournal:  # noqa: ARG002 - protocol
        """Return what forgets one session."""
        return _NoSession()
