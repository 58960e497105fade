"""Files of SQLite's that are ours: of a kind, of a version, written by one program at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.database_file.errors import journal_errors
from agent_runtime.errors import JournalError

OWNER_TABLE = """
CREATE TABLE owner (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    process INTEGER NOT NULL,
    host TEXT NOT NULL,
    command TEXT NOT NULL,
    since_epoch_s REAL NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is.

    Attributes:
        application_id: Tells SQLite whose it is.
        version: Of its tables.
        tables: Statements that make them, beside that of the owner.
    """

    application_id: int
    version: int
    tables: str

    def open_to_write(self, path: Path) -> sqlite3.Connection:
        """Open a file, and make its tables if there are none.

        Raises:
            JournalError: It can't be opened, or is none that we can write.
        """
        with journal_errors(path):
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                is_new = not self._check(connection, path)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                if is_new:
                    connection.executescript(
                        f"BEGIN IMMEDIATE; {OWNER_TABLE} {self.tables} "
                        f"PRAGMA application_id = {self.application_id}; "
                        f"PRAGMA user_version = {self.version}; COMMIT;"
                    )
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def opened_to_read(self, path: Path) -> Iterator[sqlite3.Connection]:
        """Open a file to look into, whoever writes it meanwhile.

        Raises:
            JournalError: There is none, or none that we can read.
        """
        if not path.is_file():
            raise JournalError(f"journal {path}: no such file; name one that a program has written")
        with journal_errors(path):
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            try:
                if not self._check(connection, path):
                    raise JournalError(f"journal {path}: it is empty; no program has written to it")
                connection.execute("BEGIN")  # one state of it, though it is read in several steps
                yield connection
            finally:
                connection.close()

    def _check(self, connection: sqlite3.Connection, path: Path) -> bool:
        """Return whether it is of this kind already; else it is an empty file."""
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application_id == 0 and version == 0 and num_tables == 0:
            return False
        if application_id != self.application_id:
            raise JournalError(
                f"journal {path}: it is another program's database; name another file for the "
                "journal"
            )
        if version != self.version:
            raise JournalError(
                f"journal {path}: its schema has version {version}, and this Panjiu reads "
                f"{self.version}; use the Panjiu that wrote it, or begin another journal"
            )
        return True
