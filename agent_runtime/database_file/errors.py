"""What can be wrong with a file of SQLite's, and what to do about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_runtime.errors import JournalError

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
