"""A disk for SQLite that fills up and whose fsync fails, and journals of it.

Everything is SQLite's own but what ``COMMIT`` says.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random  # noqa: TID251 - seeded by the plan
from typing import Any

from typing_extensions import override

from agent_runtime.errors import JournalError
from agent_runtime.records.record_store import Change
from agent_runtime.records.sqlite_store import SqliteStore


@dataclass
class SimDisk:
    """The disk of one machine.

    Attributes:
        rng: Says what a failed fsync leaves.
        is_full: Nothing is written.
        loses_fsyncs: What is written may be there or not, and SQLite is told that it is not.
    """

    rng: Random
    is_full: bool = False
    loses_fsyncs: bool = False

    @contextmanager
    def under_sqlite(self) -> Iterator[None]:
        """Have all databases that are opened meanwhile on it."""
        connect, disk = sqlite3.connect, self

        class Connection(sqlite3.Connection):
            @override
            def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
                if statement == "COMMIT":
                    disk.check(lambda: super(Connection, self).execute(statement))
                return super().execute(statement, *values)

        def opened(*args: Any, **terms: Any) -> sqlite3.Connection:
            made: sqlite3.Connection = connect(*args, factory=Connection, **terms)
            return made

        sqlite3.connect = opened  # type: ignore[assignment]
        try:
            yield
        finally:
            sqlite3.connect = connect

    def check(self, commit: Any) -> None:
        """Fail, if it is to."""
        if self.is_full:
            raise _told("database or disk is full", sqlite3.SQLITE_FULL)
        if self.loses_fsyncs:
            if self.rng.random() < 0.5:
                commit()
            raise _told("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)


def _told(message: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


class KilledStore:
    """A ``RecordStore`` in a file, whose process can be killed: it writes nothing from then on."""

    is_shared = False

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.is_dead = False

    def begin_life(self) -> int:
        """Return this life's number."""
        return self._store.begin_life()

    def write(self, changes: Mapping[str, Change], now_epoch_s: float) -> None:
        """Write, while alive."""
        if self.is_dead:
            raise JournalError("the process is dead")
        self._store.write(changes, now_epoch_s)

    def read(self, groups: Sequence[str], now_epoch_s: float) -> list[dict[str, bytes]]:
        """Read."""
        return self._store.read(groups, now_epoch_s)

    def names(self, prefix: str, now_epoch_s: float) -> list[str]:
        """Return names."""
        return self._store.names(prefix, now_epoch_s)

    def close(self) -> None:
        """Let it go."""
        self._store.close()
