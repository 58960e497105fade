"""Values in a file of SQLite's, written by one process at a time."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent_runtime.clock import epoch_s
from agent_runtime.database_file.errors import journal_errors
from agent_runtime.database_file.opening import FileKind
from agent_runtime.database_file.ownership import owned, sign
from agent_runtime.records.record_store import Change

TABLES = """
CREATE TABLE lives (number INTEGER PRIMARY KEY AUTOINCREMENT, began_epoch_s REAL NOT NULL);
CREATE TABLE groups (name TEXT PRIMARY KEY, expires_epoch_s REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX groups_by_expiry ON groups (expires_epoch_s);
CREATE TABLE entries (
    of TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (of, name)
);
"""
RECORDS = FileKind(application_id=0x50414E47, version=1, tables=TABLES)
"""``PANG`` says whose file it is."""

MAX_EXPIRED_AT_ONCE = 100
"""Groups that one write cleans up."""
MAX_VARIABLES = 500
"""Of a statement; SQLite takes 999 at least."""


class SqliteStore:
    """A ``RecordStore`` in a file; ``open_sqlite_store`` opens it."""

    is_shared = False

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def begin_life(self) -> int:
        """Return this life's number."""
        with journal_errors(self._path):
            row = self._connection.execute(
                "INSERT INTO lives (began_epoch_s) VALUES (?) RETURNING number", (epoch_s(),)
            )
            return int(row.fetchone()[0])

    def write(self, changes: Mapping[str, Change], now_epoch_s: float) -> None:
        """Carry out changes in one transaction."""
        connection = self._connection
        with journal_errors(self._path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for group, change in changes.items():
                    self._change(group, change, now_epoch_s)
                self._forget_expired(now_epoch_s)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def read(self, groups: Sequence[str], now_epoch_s: float) -> list[dict[str, bytes]]:
        """Return the values of groups."""
        found: dict[str, dict[str, bytes]] = defaultdict(dict)
        with journal_errors(self._path):
            for first in range(0, len(groups), MAX_VARIABLES):
                some = groups[first : first + MAX_VARIABLES]
                marks = ",".join("?" * len(some))
                rows = self._connection.execute(
                    "SELECT of, entries.name, value FROM entries JOIN groups ON groups.name = of "  # noqa: S608
                    f"WHERE expires_epoch_s > ? AND of IN ({marks})",
                    (now_epoch_s, *some),
                )
                for group, name, value in rows:
                    found[group][name] = value
        return [found.get(group, {}) for group in groups]

    def names(self, prefix: str, now_epoch_s: float) -> list[str]:
        """Return the groups whose names begin so."""
        with journal_errors(self._path):
            rows = self._connection.execute(
                "SELECT name FROM groups WHERE name >= ? AND substr(name, 1, ?) = ? "
                "AND expires_epoch_s > ? ORDER BY name",
                (prefix, len(prefix), prefix, now_epoch_s),
            )
            return [name for (name,) in rows]

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    def _change(self, group: str, change: Change, now_epoch_s: float) -> None:
        connection = self._connection
        if change.drops or self._has_expired(group, now_epoch_s):
            self._forget([(group,)])
        if change.values:
            connection.execute(
                "INSERT OR REPLACE INTO groups VALUES (?, ?)", (group, now_epoch_s + change.ttl_s)
            )
            connection.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
                [(group, name, value) for name, value in change.values.items()],
            )

    def _forget_expired(self, now_epoch_s: float) -> None:
        expired = self._connection.execute(
            "SELECT name FROM groups WHERE expires_epoch_s <= ? LIMIT ?",
            (now_epoch_s, MAX_EXPIRED_AT_ONCE),
        ).fetchall()
        self._forget(expired)

    def _has_expired(self, group: str, now_epoch_s: float) -> bool:
        row = self._connection.execute(
            "SELECT 1 FROM groups WHERE name = ? AND expires_epoch_s <= ?", (group, now_epoch_s)
        ).fetchone()
        return row is not None

    def _forget(self, groups: Sequence[tuple[str]]) -> None:
        self._connection.executemany("DELETE FROM entries WHERE of = ?", groups)
        self._connection.executemany("DELETE FROM groups WHERE name = ?", groups)


@contextmanager
def open_sqlite_store(path: Path) -> Iterator[SqliteStore]:
    """Open a file of values, or begin one.

    Raises:
        JournalError: It can't be opened, is none of ours, or another process has it.
    """
    with owned(path, RECORDS):
        connection = RECORDS.open_to_write(path)
        try:
            sign(connection, epoch_s())
            yield SqliteStore(connection, path)
        finally:
            connection.close()
