"""The file: its tables and their version. docs/sdk.md explains them."""

from __future__ import annotations

from agent_runtime.database_file.opening import FileKind

TABLES = """
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

JOURNAL = FileKind(application_id=0x50414E4A, version=1, tables=TABLES)
"""``PANJ`` says whose file it is."""
