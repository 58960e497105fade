"""One session and its steps in a journal: new ones, and those of an earlier life."""

from __future__ import annotations

from agent_runtime.clock import epoch_s
from agent_runtime.errors import JournalError, RunCancelledError
from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded, StepBegun
from agent_runtime.sdk.journaling.recorded_errors import RecordedError
from agent_runtime.sdk.journaling.rows import StepRow, StepState
from agent_runtime.sdk.journaling.store import (
    AddMessage,
    BeginStep,
    CloseSession,
    LeaveSession,
    Look,
    MarkStep,
    Opening,
    Reader,
    ReleaseSession,
)
from agent_runtime.sdk.journaling.texts import as_json
from agent_runtime.sdk.journaling.writer import Writer

MAX_SHOWN = 200
"""Characters of what was expected and what came, in messages."""


class StoredSession:
    """See the module; implements ``SessionJournal``.

    Args:
        writer: Of the journal.
        session_id: Whose.
        opening: What the store has of it.
        parent: The session that started it, in this life.
        num_begun: Of the steps those that are not to be begun again, as their program does not run.

    Attributes:
        opening: As passed.
        is_open: Until it is left.
        num_begun: Steps, in this life.
    """

    def __init__(
        self,
        writer: Writer,
        session_id: str,
        opening: Opening,
        parent: StoredSession | None,
        num_begun: int = 0,
    ) -> None:
        self.opening = opening
        self.is_open = True
        self.num_begun = num_begun
        self._writer = writer
        self._session_id = session_id
        self._parent = parent
        self._log: StoredStepLog | None = None
        self._is_closed = opening.found is not None and opening.found.is_closed

    async def step(self, begun: StepBegun) -> StoredStepLog:
        """Begin the next step, or give back the one of the earlier life."""
        self._note_cancelled()
        number, steps = self.num_begun, self.opening.steps
        self.num_begun += 1
        if number < len(steps):
            self._log = await self._again(steps[number], begun)
            return self._log
        row = StepRow.of(number, begun)
        self._writer.post(BeginStep(self.opening.key, row, epoch_s()))
        if self._is_closed:
            self._is_closed = False
            self._writer.post(CloseSession(self.opening.key, None))
        self._log = self._log_of(row, Recorded())
        return self._log

    async def left(self, *, for_good: bool) -> None:
        """Take down that nobody has it open any more."""
        self.is_open = False
        try:
            if for_good:
                self._close()
            elif self._log is not None and self._log.state is StepState.FAILED:
                self._writer.post(LeaveSession(self.opening.key))
        finally:
            self._writer.post(ReleaseSession(self._session_id))

    def _close(self) -> None:
        self._note_cancelled()
        steps = self.opening.steps
        if self.num_begun < len(steps):
            expected = f"'{steps[self.num_begun].told}'"
            end = "the session's end"
            raise self._differs(self.num_begun, end, expected, "no further step")
        if not self._is_closed:
            self._is_closed = True
            self._writer.post(CloseSession(self.opening.key, epoch_s()))

    def _note_cancelled(self) -> None:
        if self._log is not None and self._log.state is StepState.RUNNING:
            self._log.cancelled()

    async def _again(self, row: StepRow, begun: StepBegun) -> StoredStepLog:
        """Return a step of the earlier life.

        Raises:
            AgentError: It came to nothing, and the program went on from that.
        """
        self._check_same(row, begun)
        key, found, is_last = self.opening.key, self.opening.found, self._is_last(row)
        goes_on = is_last and (found is None or found.is_last) and not self._is_closed
        left_at = None if found is None or row.state is not StepState.FAILED else found.left_at
        until = 0 if self._parent is None else self._parent.opening.last_key

        def look(reader: Reader) -> tuple[Recorded, bool]:
            went_on = left_at is not None and reader.went_on_without(key, left_at, until)
            return reader.recorded(key, row), went_on

        recorded, went_on = await self._writer.do(Look(look))
        if row.state is StepState.FAILED and row.error is not None:
            if went_on or not goes_on:
                raise row.error.error()
            row.state, row.error = StepState.RUNNING, None
            self._writer.post(MarkStep(key, row.number, StepState.RUNNING, None, epoch_s()))
        elif row.state is StepState.CANCELLED or (row.state is StepState.RUNNING and not goes_on):
            raise RunCancelledError(
                f"session {self._session_id}, step {row.number + 1} was cancelled in an earlier "
                "life of the program, which then went on; where runs are cancelled, catch "
                "RunCancelledError as well"
            )
        return self._log_of(row, recorded)

    def _is_last(self, row: StepRow) -> bool:
        return row.number == len(self.opening.steps) - 1

    def _log_of(self, row: StepRow, recorded: Recorded) -> StoredStepLog:
        return StoredStepLog(self._writer, self._session_id, self.opening.key, row, recorded)

    def _check_same(self, row: StepRow, begun: StepBegun) -> None:
        told = StepRow.of(row.number, begun)
        for what, expected, got in (
            ("kind of step", row.kind, told.kind),
            ("what the agent is told", row.told, told.told),
            ("fields of the request", row.members, told.members),
            ("messages that are kept", row.num_kept, told.num_kept),
            ("messages that were added", row.added, told.added),
        ):
            if expected != got:
                raise self._differs(row.number, what, expected, got)

    def _differs(self, number: int, what: str, expected: object, got: object) -> JournalError:
        return differs(self._writer.name, self._session_id, number, what, (expected, got))


class StoredStepLog:
    """A step in a journal; implements ``StepLog``.

    Args:
        writer: Of the journal.
        session_id: Whose.
        session: The session's key.
        row: The step as it is kept, or about to be.
        recorded: What there is of it.
    """

    def __init__(
        self, writer: Writer, session_id: str, session: int, row: StepRow, recorded: Recorded
    ) -> None:
        self.recorded = recorded
        self._writer = writer
        self._session_id = session_id
        self._session = session
        self._row = row

    @property
    def state(self) -> StepState:
        """How far it is."""
        return self._row.state

    async def add(self, message: Message, usage: Usage | None = None) -> None:
        """Take down a message; returns once it is safe."""
        number, text = self._row.number, as_json(message)
        if self.state is not StepState.RUNNING:
            over = ("no further message", text)
            raise differs(self._writer.name, self._session_id, number, "the step is over", over)
        await self._writer.do(AddMessage(self._session, number, text, usage, epoch_s()))

    async def ended(self) -> None:
        """Take down that it came to its end."""
        self._over(StepState.ENDED, None)

    async def failed(self, error: Exception) -> None:
        """Take down that it came to nothing; that the journal did is no outcome of the step."""
        if self.state is StepState.RUNNING and not isinstance(error, JournalError):
            self._over(StepState.FAILED, RecordedError.of(error))

    def cancelled(self) -> None:
        """Take down that it was cancelled."""
        self._over(StepState.CANCELLED, None)

    def _over(self, state: StepState, error: RecordedError | None) -> None:
        self._row.state = state
        self._writer.post(MarkStep(self._session, self._row.number, state, error, epoch_s()))


def differs(
    journal: str, session_id: str, number: int | None, what: str, values: tuple[object, object]
) -> JournalError:
    """Return the error of a program that does something else than in its earlier life.

    Args:
        journal: Its name.
        session_id: Whose.
        number: The step, or None for the session as a whole.
        what: That is not as it was.
        values: What was expected, and what came.
    """
    step = "" if number is None else f", step {number + 1}"
    expected, got = values
    return JournalError(
        f"session {session_id}{step}: the program does something else than in its earlier "
        f"life: {what}: expected {_shown(expected)}, got {_shown(got)}; let it be as it was, "
        f"give the session another id, or begin a journal other than {journal}"
    )


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
