"""Carries out what a journal wants of an SQLite database, and reads it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent_runtime.database_file.errors import journal_errors
from agent_runtime.database_file.ownership import is_owned
from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded
from agent_runtime.sdk.journaling.rows import Beginning, StepRow, StepState
from agent_runtime.sdk.journaling.store import (
    AddMessage,
    BeginStep,
    ClaimSession,
    CloseSession,
    Job,
    LeaveSession,
    Look,
    MarkStep,
    Opening,
    OpenSession,
    ReleaseSession,
)
from agent_runtime.sdk.journaling.summaries import SessionSummary
from agent_runtime.sdk.sqlite_journal import statements
from agent_runtime.sdk.sqlite_journal.schema import JOURNAL


class SqliteReader:
    """Implements ``Reader``.

    Args:
        connection: To the database.
        path: Its file.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @property
    def name(self) -> str:
        """What people call the journal."""
        return str(self._path)

    def summaries(self, session_id: str | None = None) -> list[SessionSummary]:
        """Return all sessions, or all of one id."""
        return statements.read_summaries(self._connection, session_id)

    def steps(self, session: int) -> list[StepRow]:
        """Return the steps of a session."""
        return statements.read_steps(self._connection, session)

    def recorded(self, session: int, step: StepRow) -> Recorded:
        """Return what there is of a step."""
        rows = statements.read_messages(self._connection, session, step.number)
        messages: list[Message] = [json.loads(message) for message, *_ in rows]
        usages = [Usage(*tokens) for _, *tokens in rows if tokens[0] is not None]
        return Recorded(messages, usages, step.state is StepState.ENDED)

    def beginning(self, session: int) -> Beginning:
        """Return what a session begins with."""
        return statements.read_beginning(self._connection, session)

    def went_on_without(self, session: int, left_at: int, until: int) -> bool:
        """Return whether a session's parent did something after it had left it to its error."""
        return statements.went_on_without(self._connection, session, left_at, until)

    def is_written(self) -> bool:
        """Return whether some program writes it now."""
        return is_owned(self._path)


class SqliteStore(SqliteReader):
    """Implements ``Store``: a batch is a transaction.

    The whole file is one program's, so its sessions are, too.

    Args:
        connection: In autocommit mode; used by one thread at a time.
        path: Its file.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection, path)
        with journal_errors(path):
            self._last_key = statements.read_last_key(connection)

    def carry_out(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Do jobs in a transaction; return their results."""
        connection, last_key = self._connection, self._last_key
        with journal_errors(self._path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                results = [self._do(job) for job in jobs]
                connection.execute("COMMIT")
            except BaseException:
                self._last_key = last_key
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        return results

    def _do(self, job: Job[Any]) -> Any:  # noqa: ANN401 - as the job says
        connection = self._connection
        match job:
            case OpenSession():
                return self._open(job)
            case BeginStep():
                statements.insert_step(connection, self._next_key(), job)
            case MarkStep():
                statements.update_step(connection, job)
            case AddMessage():
                statements.insert_message(connection, self._next_key(), job)
            case CloseSession():
                statements.update_closed(connection, job.session, job.at_epoch_s)
            case LeaveSession():
                statements.update_left(connection, job.session, self._next_key())
            case ClaimSession():
                return self._last_key
            case Look():
                return job.look(self)
            case ReleaseSession():
                pass
            case _:
                raise TypeError(f"no job: {job!r}")
        return None

    def _open(self, job: OpenSession) -> Opening:
        last_key = self._last_key
        found = statements.find_session(self._connection, job.opened, job.opening)
        if found is not None:
            key, row = found
            return Opening(key, last_key, row, self.steps(key))
        key = self._next_key()
        statements.insert_session(self._connection, key, job)
        return Opening(key, last_key)

    def _next_key(self) -> int:
        self._last_key += 1
        return self._last_key


@contextmanager
def opened_reader(path: Path) -> Iterator[SqliteReader]:
    """Open a journal to look into, whoever writes it meanwhile.

    Raises:
        JournalError: There is none, or none that we can read.
    """
    with JOURNAL.opened_to_read(path) as connection:
        yield SqliteReader(connection, path)
