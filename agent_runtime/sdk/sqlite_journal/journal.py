"""A journal in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread  # noqa: TID251 - opening recovers what a crash left, which may take a while

from agent_runtime.clock import epoch_s
from agent_runtime.database_file.errors import journal_errors
from agent_runtime.database_file.ownership import owned, sign
from agent_runtime.sdk.journaling.journal import StoredJournal
from agent_runtime.sdk.journaling.writer import Writer
from agent_runtime.sdk.sqlite_journal.schema import JOURNAL
from agent_runtime.sdk.sqlite_journal.store import SqliteStore


class SqliteJournal(StoredJournal):
    """A journal in a file; ``SqliteJournal.open`` opens it."""

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
                store = await anyio.to_thread.run_sync(  # noqa: TID251
                    _signed_store, connection, place
                )
                writer = Writer(store)
                async with writer.running():
                    yield cls(writer)
            finally:
                connection.close()


def _signed_store(connection: sqlite3.Connection, path: Path) -> SqliteStore:
    with journal_errors(path):
        sign(connection, epoch_s())
    return SqliteStore(connection, path)
