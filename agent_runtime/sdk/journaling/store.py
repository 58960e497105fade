"""What a journal has its store do, as values, and what stores are to it.

Sessions have keys, and so has all that happens in one: they come of one counter of the store's, so
they tell what came before what. Steps are known by their session's key and their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded, SessionOpened
from agent_runtime.sdk.journaling.recorded_errors import RecordedError
from agent_runtime.sdk.journaling.rows import Beginning, SessionRow, StepRow, StepState
from agent_runtime.sdk.journaling.summaries import SessionSummary

T_co = TypeVar("T_co", covariant=True)


class Job(Generic[T_co]):
    """Something to be done, with a result of that type."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A session is another program's at present.

    Attributes:
        why: Whose, and what to do.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Opening:
    """A session that was opened.

    Attributes:
        key: Its key.
        last_key: The greatest that there was before.
        found: What is known of it, if it is of an earlier life.
        steps: Of the earlier life.
    """

    key: int
    last_key: int
    found: SessionRow | None = None
    steps: list[StepRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OpenSession(Job[Opening | Refused]):
    """Find the session of an earlier life, or begin it; from then on it is this program's.

    Attributes:
        opened: What it begins with.
        opening: How often that id was opened at that place before, in this life.
        parent: The parent's key, and how many steps that had begun.
        at_epoch_s: When.
    """

    opened: SessionOpened
    opening: int
    parent: tuple[int, int] | None
    at_epoch_s: float


@dataclass(frozen=True, slots=True)
class ClaimSession(Job[int | Refused]):
    """Make the sessions of an id this program's; return the last key that there is."""

    session_id: str


@dataclass(frozen=True, slots=True)
class ReleaseSession(Job[None]):
    """Let other programs have the sessions of an id."""

    session_id: str


@dataclass(frozen=True, slots=True)
class BeginStep(Job[None]):
    """Take down a step that begins."""

    session: int
    step: StepRow
    at_epoch_s: float


@dataclass(frozen=True, slots=True)
class MarkStep(Job[None]):
    """Take down how far a step is."""

    session: int
    number: int
    state: StepState
    error: RecordedError | None
    at_epoch_s: float


@dataclass(frozen=True, slots=True)
class AddMessage(Job[None]):
    """Take down a message of a step, which is JSON."""

    session: int
    number: int
    message: str
    usage: Usage | None
    at_epoch_s: float


@dataclass(frozen=True, slots=True)
class CloseSession(Job[None]):
    """Take down that a session is over, or, without a time, that it is not any more."""

    session: int
    at_epoch_s: float | None


@dataclass(frozen=True, slots=True)
class LeaveSession(Job[None]):
    """Take down that an error took the program out of a session."""

    session: int


class Reader(Protocol):
    """Reads what is kept.

    All raise ``JournalError`` where that can't be read.
    """

    @property
    def name(self) -> str:
        """What people call the journal; no passwords."""
        ...

    def summaries(self, session_id: str | None = None) -> list[SessionSummary]:
        """Return all sessions, or all of one id, in the order in which they were opened."""
        ...

    def steps(self, session: int) -> list[StepRow]:
        """Return the steps of a session, in order."""
        ...

    def recorded(self, session: int, step: StepRow) -> Recorded:
        """Return what there is of a step."""
        ...

    def beginning(self, session: int) -> Beginning:
        """Return what a session begins with."""
        ...

    def went_on_without(self, session: int, left_at: int, until: int) -> bool:
        """Return whether a session's parent did something after it had left it to its error.

        Another step, or another child that came as far as an answer of the model. What was on its
        way when the error went through the program does not count.

        Args:
            session: The session.
            left_at: When it was left, in the order of all keys.
            until: The last key of earlier lives.
        """
        ...

    def is_written(self) -> bool:
        """Return whether some program writes it now."""
        ...


@dataclass(frozen=True, slots=True)
class Look(Job[T_co]):
    """Read something, once all before it is written."""

    look: Callable[[Reader], T_co]


class Store(Reader, Protocol):
    """Keeps sessions; used by one thread at a time."""

    def carry_out(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Do jobs in order, all or none; return their results once all is on disk.

        Raises:
            JournalError: They can't be written.
        """
        ...
