"""Takes sessions down in an SQLite database, and gives them back in later lives of a program."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread  # noqa: TID251 - opening recovers what a crash left, which may take a while

from agent_runtime.clock import epoch_s
from agent_runtime.database_file.ownership import owned, sign
from agent_runtime.errors import JournalError
from agent_runtime.sdk.journal import SessionJournal, SessionOpened
from agent_runtime.sdk.sqlite_journal.rows import (
    SessionRow,
    StepRow,
    find_session,
    insert_session,
    read_steps,
)
from agent_runtime.sdk.sqlite_journal.schema import JOURNAL
from agent_runtime.sdk.sqlite_journal.session import SqliteSession, Tables
from agent_runtime.sdk.sqlite_journal.stored import (
    SessionSummary,
    StoredStep,
    check_unfinished,
    last_of_id,
    read_stored_steps,
)
from agent_runtime.sdk.sqlite_journal.texts import as_json, as_text
from agent_runtime.sdk.sqlite_journal.writer import Writer


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A session that broke off.

    Attributes:
        summary: What it is.
        done: Its steps before.
        step: That was under way, or failed.
        journal: Takes down how it goes on.
    """

    summary: SessionSummary
    done: Sequence[StoredStep]
    step: StoredStep
    journal: SessionJournal


class SqliteJournal:
    """A journal in a file; ``SqliteJournal.open`` opens it.

    Invariant: all keys, of sessions, steps and messages, come of one counter, so they tell what
        came before what.
    """

    def __init__(self, path: Path, tables: Tables) -> None:
        self.path = path
        self._tables = tables
        self._num_opened: Counter[tuple[str, str]] = Counter()
        self._sessions: dict[str, SqliteSession] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str | Path) -> AsyncIterator[Self]:
        """Open a journal, or begin one; on the way out all is on disk.

        Args:
            path: Of the file. SQLite keeps ``-wal`` and ``-shm`` beside it, and we ``-lock``.

        Raises:
            JournalError: It can't be opened, is no journal of ours, or another program has it; on
                the way out: something could not be written.
        """
        place = Path(path)
        with owned(place, JOURNAL):
            connection = await anyio.to_thread.run_sync(JOURNAL.open_to_write, place)  # noqa: TID251
            try:
                writer = Writer(connection, place)
                async with writer.running():
                    last_key = await writer.do(_last_key)
                    now_epoch_s = epoch_s()
                    await writer.do(lambda connection: sign(connection, now_epoch_s))
                    yield cls(place, Tables(writer, place, last_key))
            finally:
                connection.close()

    async def session(self, opened: SessionOpened) -> SqliteSession:
        """Open a session, or go on with the one of an earlier life."""
        before = self._sessions.get(opened.session_id)
        if before is not None and before.is_open:
            raise JournalError(
                f"session {opened.session_id} is open already; a session has one place at a time: "
                "use other ids, or leave it first"
            )
        opening = self._num_opened[opened.session_id, opened.place]
        self._num_opened[opened.session_id, opened.place] += 1
        parent = self._sessions.get(opened.parent_id) if opened.parent_id is not None else None
        parent_key = None if parent is None else (parent.row_id, parent.num_begun)
        key, now_epoch_s = self._tables.next_key(), epoch_s()

        def find_or_insert(
            connection: sqlite3.Connection,
        ) -> tuple[SessionRow | None, list[StepRow]]:
            found = find_session(connection, opened, opening)
            if found is not None:
                return found, read_steps(connection, found.row_id)
            insert_session(connection, key, opened, opening, parent_key, now_epoch_s)
            return None, []

        found, steps = await self._tables.writer.do(find_or_insert)
        if found is not None:
            self._check_same(opened, found)
        session = SqliteSession(self._tables, opened.session_id, key, found, steps)
        self._sessions[opened.session_id] = session
        return session

    async def take_up(self, session_id: str) -> Unfinished:
        """Open a session of an earlier life where it broke off, without the program before that.

        Raises:
            ConfigError: There is none, or nothing of it is left to do.
            JournalError: The journal can't be read.
        """

        def find(connection: sqlite3.Connection) -> tuple[SessionSummary, list[StoredStep]]:
            summary = last_of_id(connection, session_id, self.path)
            return summary, read_stored_steps(connection, summary.row_id)

        summary, stored = await self._tables.writer.do(find)
        check_unfinished(summary, stored)
        rows = await self._tables.writer.do(partial(read_steps, session_row=summary.row_id))
        session = SqliteSession(
            self._tables, session_id, summary.row_id, None, rows, num_begun=len(rows) - 1
        )
        self._sessions[session_id] = session
        return Unfinished(summary, stored[:-1], stored[-1], session)

    def _check_same(self, opened: SessionOpened, found: SessionRow) -> None:
        """See to it that a session is the one of the earlier life."""
        parent_id = None if opened.parent_id is None else as_text(opened.parent_id)
        for what, expected, got in (
            ("agent", found.agent, as_text(opened.agent)),
            ("parent", found.parent_id, parent_id),
            ("number of messages of its parent", found.num_kept, opened.num_kept),
            ("first messages", found.added, as_json(list(opened.added))),
        ):
            if expected != got:
                raise self._tables.differs(opened.session_id, None, what, expected, got)


def _last_key(connection: sqlite3.Connection) -> int:
    (key,) = connection.execute(
        "SELECT max((SELECT ifnull(max(id), 0) FROM sessions), (SELECT ifnull(max(id), 0) FROM "
        "steps), (SELECT ifnull(max(id), 0) FROM messages), (SELECT ifnull(max(left_at), 0) FROM "
        "sessions))"
    ).fetchone()
    return int(key)
