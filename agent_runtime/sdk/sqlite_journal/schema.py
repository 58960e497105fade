"""The file: its tables, their version, and what can be wrong with it. docs/sdk.md explains them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_runtime.errors import JournalError

APPLICATION_ID = 0x50414E4A
"""``PANJ``: whose file it is, to SQLite."""
SCHEMA_VERSION = 1

TABLES = """
CREATE TABLE owner (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    process INTEGER NOT NULL,
    host TEXT NOT NULL,
    command TEXT NOT NULL,
    since_epoch_s REAL NOT NULL
);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    place TEXT NOT NULL,
    opening INTEGER NOT NULL,
    agent TEXT NOT NULL,
    model TEXT NOT NULL,
    parent INTEGER REFERENCES sessions,
    forked_after INTEGER,
    num_kept INTEGER NOT NULL,
    added TEXT NOT NULL,
    opened_epoch_s REAL NOT NULL,
    left_at INTEGER,
    closed_epoch_s REAL,
    UNIQUE (session_id, place, opening)
);
CREATE INDEX sessions_of_parent ON sessions (parent) WHERE parent IS NOT NULL;
CREATE TABLE steps (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    told TEXT NOT NULL,
    members TEXT NOT NULL,
    num_kept INTEGER NOT NULL,
    added TEXT NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    error_message TEXT,
    error_status INTEGER,
    begun_epoch_s REAL NOT NULL,
    over_epoch_s REAL,
    UNIQUE (session, number)
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    step INTEGER NOT NULL REFERENCES steps,
    message TEXT NOT NULL,
    prompt_tokens INTEGER,
    cached_tokens INTEGER,
    output_tokens INTEGER,
    at_epoch_s REAL NOT NULL
);
CREATE INDEX messages_of_step ON messages (step);
"""

FIXES = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, and start the program again",
    sqlite3.SQLITE_READONLY: "it is read-only; make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; the folder must exist and be writable",
    sqlite3.SQLITE_CORRUPT: "it is damaged; 'sqlite3 FILE .recover' saves what can be read",
    sqlite3.SQLITE_NOTADB: "it is no journal; name another file, or move this one away",
    sqlite3.SQLITE_BUSY: "another program holds it; stop that one, or use another file",
    sqlite3.SQLITE_IOERR: "the disk fails; look at the system's log",
}
PRIMARY_CODE = 0xFF
"""Of SQLite's extended error codes: the part that says what kind."""


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ones that say what to do.

    Raises:
        JournalError: Instead of ``sqlite3.Error``.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
        fix = FIXES.get(code, "if the file is as Panjiu wrote it, please report this")
        raise JournalError(f"journal {path}: {error}: {fix}") from error


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open a journal, and make its tables if there are none.

    Raises:
        JournalError: It can't be opened, or is none that we can write.
    """
    with journal_errors(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            is_new = not _check(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if is_new:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; "
                    f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def opened_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal to look into, whoever writes it meanwhile.

    Raises:
        JournalError: There is none, or none that we can read.
    """
    if not path.is_file():
        raise JournalError(f"journal {path}: no such file; name one that a program has written")
    with journal_errors(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            if not _check(connection, path):
                raise JournalError(f"journal {path}: it is empty; no program has written to it")
            connection.execute("BEGIN")  # one state of it, though it is read in several steps
            yield connection
        finally:
            connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether it is a journal already; else it is an empty file."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id == 0 and version == 0 and num_tables == 0:
        return False
    if application_id != APPLICATION_ID:
        raise JournalError(
            f"journal {path}: it is another program's database; name another file for the journal"
        )
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"journal {path}: its schema has version {version}, and this Panjiu reads "
            f"{SCHEMA_VERSION}; use the Panjiu that wrote it, or begin another journal"
        )
    return True
