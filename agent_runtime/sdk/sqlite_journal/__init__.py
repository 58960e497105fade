"""Sessions in a file: SQLite, one program at a time, read by as many as want."""

from agent_runtime.sdk.sqlite_journal.journal import SqliteJournal

__all__ = ["SqliteJournal"]
