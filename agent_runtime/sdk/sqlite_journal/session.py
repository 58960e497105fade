"""One session and its steps in a journal: new ones, and those of an earlier life."""

from __future__ import annotations

import itertools
import sqlite3
from functools import partial
from pathlib import Path

from agent_runtime.clock import epoch_s
from agent_runtime.errors import JournalError, RunCancelledError
from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded, StepBegun
from agent_runtime.sdk.sqlite_journal.recorded_errors import RecordedError
from agent_runtime.sdk.sqlite_journal.rows import (
    SessionRow,
    StepRow,
    StepState,
    insert_message,
    insert_step,
    read_recorded,
    update_step,
    went_on_without,
)
from agent_runtime.sdk.sqlite_journal.texts import as_json
from agent_runtime.sdk.sqlite_journal.writer import Writer

MAX_SHOWN = 200
"""Characters of what was expected and what came, in messages."""


class Tables:
    """What sessions share.

    Args:
        writer: Writes.
        path: Of the journal, for messages.
        last_key: The greatest of earlier lives.
    """

    def __init__(self, writer: Writer, path: Path, last_key: int) -> None:
        self.writer = writer
        self.last_key = last_key
        self._path = path
        self._keys = itertools.count(last_key + 1)

    def next_key(self) -> int:
        """Return a key for a row."""
        return next(self._keys)

    def differs(
        self, session_id: str, number: int | None, what: str, expected: object, got: object
    ) -> JournalError:
        """Return the error of a program that does something else than in its earlier life."""
        step = "" if number is None else f", step {number + 1}"
        return JournalError(
            f"session {session_id}{step}: the program does something else than in its earlier "
            f"life: {what}: expected {_shown(expected)}, got {_shown(got)}; let it be as it was, "
            f"give the session another id, or begin a journal other than {self._path}"
        )


class SqliteSession:
    """See the module; implements ``SessionJournal``.

    Args:
        tables: The journal.
        session_id: Whose.
        key: Of its row, if it is new.
        found: The row of the earlier life, as far as the program may do something else.
        steps: Of the earlier life.
        num_begun: Of these that are not to be begun again, as their program does not run.

    Attributes:
        row_id: The key of its row.
        is_open: Until it is left.
        num_begun: Steps, in this life.
    """

    def __init__(
        self,
        tables: Tables,
        session_id: str,
        key: int,
        found: SessionRow | None,
        steps: list[StepRow],
        num_begun: int = 0,
    ) -> None:
        self.row_id = key if found is None else found.row_id
        self.is_open = True
        self.num_begun = num_begun
        self._tables = tables
        self._session_id = session_id
        self._found = found
        self._steps = steps
        self._log: SqliteStep | None = None
        self._is_closed = found is not None and found.is_closed

    async def step(self, begun: StepBegun) -> SqliteStep:
        """Begin the next step, or give back the one of the earlier life."""
        self._note_cancelled()
        number = self.num_begun
        self.num_begun += 1
        if number < len(self._steps):
            self._log = await self._again(self._steps[number], begun)
            return self._log
        row = StepRow.of(self._tables.next_key(), number, begun)
        writer, now_epoch_s = self._tables.writer, epoch_s()
        writer.post(lambda connection: insert_step(connection, self.row_id, row, now_epoch_s))
        if self._is_closed:
            self._is_closed = False
            writer.post(partial(_update_closed, row_id=self.row_id, closed_epoch_s=None))
        self._log = SqliteStep(self._tables, self._session_id, row, Recorded())
        return self._log

    async def left(self, *, for_good: bool) -> None:
        """Take down that nobody has it open any more."""
        self.is_open = False
        writer = self._tables.writer
        if not for_good:
            if self._log is not None and self._log.state is StepState.FAILED:
                key = self._tables.next_key()
                writer.post(partial(_update_left, row_id=self.row_id, left_at=key))
            return
        self._note_cancelled()
        if self.num_begun < len(self._steps):
            raise self._tables.differs(
                self._session_id,
                self.num_begun,
                "the session's end",
                f"'{self._steps[self.num_begun].told}'",
                "no further step",
            )
        if not self._is_closed:
            self._is_closed = True
            writer.post(partial(_update_closed, row_id=self.row_id, closed_epoch_s=epoch_s()))

    def _note_cancelled(self) -> None:
        if self._log is not None and self._log.state is StepState.RUNNING:
            self._log.cancelled()

    async def _again(self, row: StepRow, begun: StepBegun) -> SqliteStep:
        """Return a step of the earlier life.

        Raises:
            AgentError: It came to nothing, and the program went on from that.
        """
        self._check_same(row, begun)
        found, is_last = self._found, row.number == len(self._steps) - 1
        goes_on = is_last and (found is None or found.is_last) and not self._is_closed

        def read(connection: sqlite3.Connection) -> tuple[Recorded, bool]:
            went_on = (
                found is not None
                and found.left_at is not None
                and row.state is StepState.FAILED
                and went_on_without(connection, found.row_id, found.left_at, self._tables.last_key)
            )
            return read_recorded(connection, row), went_on

        recorded, went_on = await self._tables.writer.do(read)
        if row.state is StepState.FAILED and row.error is not None:
            if went_on or not goes_on:
                raise row.error.error()
            row.state, row.error = StepState.RUNNING, None
            now_epoch_s = epoch_s()
            self._tables.writer.post(
                lambda connection: update_step(
                    connection, row.row_id, StepState.RUNNING, None, now_epoch_s
                )
            )
        elif row.state is StepState.CANCELLED or (row.state is StepState.RUNNING and not goes_on):
            raise RunCancelledError(
                f"session {self._session_id}, step {row.number + 1} was cancelled in an earlier "
                "life of the program, which then went on; where runs are cancelled, catch "
                "RunCancelledError as well"
            )
        return SqliteStep(self._tables, self._session_id, row, recorded)

    def _check_same(self, row: StepRow, begun: StepBegun) -> None:
        told = StepRow.of(row.row_id, row.number, begun)
        for what, expected, got in (
            ("kind of step", row.kind, told.kind),
            ("what the agent is told", row.told, told.told),
            ("fields of the request", row.members, told.members),
            ("messages that are kept", row.num_kept, told.num_kept),
            ("messages that were added", row.added, told.added),
        ):
            if expected != got:
                raise self._tables.differs(self._session_id, row.number, what, expected, got)


class SqliteStep:
    """A step in a journal; implements ``StepLog``.

    Args:
        tables: The journal.
        session_id: Whose.
        row: Its row, which is written or about to be.
        recorded: What there is of it.
    """

    def __init__(self, tables: Tables, session_id: str, row: StepRow, recorded: Recorded) -> None:
        self.recorded = recorded
        self._tables = tables
        self._session_id = session_id
        self._row = row

    @property
    def state(self) -> StepState:
        """How far it is."""
        return self._row.state

    async def add(self, message: Message, usage: Usage | None = None) -> None:
        """Take down a message; returns once it is safe."""
        if self.state is not StepState.RUNNING:
            raise self._tables.differs(
                self._session_id,
                self._row.number,
                "the step is over",
                "no further message",
                as_json(message),
            )
        key, text, now_epoch_s = self._tables.next_key(), as_json(message), epoch_s()
        row_id = self._row.row_id
        await self._tables.writer.do(
            lambda connection: insert_message(connection, key, row_id, text, usage, now_epoch_s)
        )

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
        row_id, now_epoch_s = self._row.row_id, epoch_s()
        self._tables.writer.post(
            lambda connection: update_step(connection, row_id, state, error, now_epoch_s)
        )


def _update_closed(
    connection: sqlite3.Connection, *, row_id: int, closed_epoch_s: float | None
) -> None:
    connection.execute(
        "UPDATE sessions SET closed_epoch_s = ? WHERE id = ?", (closed_epoch_s, row_id)
    )


def _update_left(connection: sqlite3.Connection, *, row_id: int, left_at: int) -> None:
    connection.execute("UPDATE sessions SET left_at = ? WHERE id = ?", (left_at, row_id))


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
