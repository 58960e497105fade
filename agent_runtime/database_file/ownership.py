"""One program at a time writes a journal; the lock goes when its process does, however it ends."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from agent_runtime.database_file.errors import journal_errors
from agent_runtime.database_file.opening import FileKind
from agent_runtime.errors import JournalError


@contextmanager
def owned(path: Path, kind: FileKind) -> Iterator[None]:
    """Keep other programs, and other runtimes of this one, from writing a journal.

    The lock is SQLite's own, on an empty database beside the journal: it is there on every system,
    dies with the process, is not handed on to forks, and leaves the journal itself to readers.

    Raises:
        JournalError: Somebody else has it; says who.
    """
    lock_path = path.with_name(path.name + "-lock")
    with journal_errors(path):
        lock = sqlite3.connect(lock_path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                raise JournalError(
                    f"journal {path} is in use by {_owner(path, kind)}; wait until it is done, "
                    "stop it, or give this program a journal of its own"
                ) from error
            yield
        finally:
            lock.close()


def sign(connection: sqlite3.Connection, now_epoch_s: float) -> None:
    """Write down who has the journal, for ``owned`` elsewhere to say."""
    command = " ".join(sys.orig_argv) or sys.executable
    connection.execute(
        "INSERT OR REPLACE INTO owner VALUES (1, ?, ?, ?, ?)",
        (os.getpid(), socket.gethostname(), command, now_epoch_s),
    )


def is_owned(path: Path) -> bool:
    """Return whether some program writes a journal now.

    Raises:
        JournalError: That can't be found out.
    """
    lock_path = path.with_name(path.name + "-lock")
    if not lock_path.exists():
        return False
    with journal_errors(path):
        lock = sqlite3.connect(f"{lock_path.absolute().as_uri()}?mode=ro", uri=True, timeout=0)
        try:
            lock.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return True
        finally:
            lock.close()
    return False


def _owner(path: Path, kind: FileKind) -> str:
    with kind.opened_to_read(path) as connection:
        row = connection.execute("SELECT process, host, command, since_epoch_s FROM owner")
        told = row.fetchone()
    if told is None:
        return "another program, which has just begun"
    process, host, command, since_epoch_s = told
    since = datetime.fromtimestamp(since_epoch_s, UTC)
    return f"process {process} on {host} since {since:%Y-%m-%d %H:%M:%S} UTC ({command})"
