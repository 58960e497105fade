"""What is written in a journal's tables and read back of them, statement by statement."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from agent_runtime.sdk.journal import SessionOpened
from agent_runtime.sdk.journaling.recorded_errors import RecordedError
from agent_runtime.sdk.journaling.rows import Beginning, SessionRow, StepRow, StepState
from agent_runtime.sdk.journaling.store import AddMessage, BeginStep, MarkStep, OpenSession
from agent_runtime.sdk.journaling.summaries import SessionSummary
from agent_runtime.sdk.journaling.texts import as_json, as_text

SUMMARIES = """
SELECT s.id, s.session_id, s.agent, s.model, s.closed_epoch_s,
    (SELECT state FROM steps WHERE session = s.id ORDER BY number DESC LIMIT 1),
    (SELECT count(*) FROM steps WHERE session = s.id),
    count(m.prompt_tokens), ifnull(sum(m.prompt_tokens), 0), ifnull(sum(m.cached_tokens), 0),
    ifnull(sum(m.output_tokens), 0), p.session_id, s.place, s.opened_epoch_s,
    max(s.opened_epoch_s, ifnull(s.closed_epoch_s, 0), ifnull(max(m.at_epoch_s), 0),
        ifnull(max(t.begun_epoch_s), 0), ifnull(max(t.over_epoch_s), 0))
FROM sessions AS s
    LEFT JOIN sessions AS p ON p.id = s.parent
    LEFT JOIN steps AS t ON t.session = s.id
    LEFT JOIN messages AS m ON m.step = t.id
WHERE ?1 IS NULL OR s.session_id = ?1
GROUP BY s.id ORDER BY s.id
"""
ADD_MESSAGE = """
INSERT INTO messages
VALUES (?, (SELECT id FROM steps WHERE session = ? AND number = ?), ?, ?, ?, ?, ?)
"""
MESSAGES = """
SELECT message, prompt_tokens, cached_tokens, output_tokens FROM messages
WHERE step = (SELECT id FROM steps WHERE session = ? AND number = ?) ORDER BY id
"""


def read_last_key(connection: sqlite3.Connection) -> int:
    """Return the greatest key."""
    (key,) = connection.execute(
        "SELECT max((SELECT ifnull(max(id), 0) FROM sessions), (SELECT ifnull(max(id), 0) FROM "
        "steps), (SELECT ifnull(max(id), 0) FROM messages), (SELECT ifnull(max(left_at), 0) FROM "
        "sessions))"
    ).fetchone()
    return int(key)


def find_session(
    connection: sqlite3.Connection, opened: SessionOpened, opening: int
) -> tuple[int, SessionRow] | None:
    """Return the key and the row of a session of an earlier life, or None.

    Args:
        connection: The journal.
        opened: Its id and place count.
        opening: How often that id was opened there before, in one life.
    """
    row = connection.execute(
        "SELECT s.id, s.agent, p.session_id, s.num_kept, s.added, s.left_at, s.closed_epoch_s, "
        "NOT EXISTS (SELECT 1 FROM sessions AS t WHERE t.session_id = s.session_id "
        "AND t.place = s.place AND t.opening > s.opening) "
        "FROM sessions AS s LEFT JOIN sessions AS p ON p.id = s.parent "
        "WHERE s.session_id = ? AND s.place = ? AND s.opening = ?",
        (as_text(opened.session_id), as_text(opened.place), opening),
    ).fetchone()
    if row is None:
        return None
    key, agent, parent_id, num_kept, added, left_at, closed_epoch_s, is_last = row
    is_closed = closed_epoch_s is not None
    found = SessionRow(agent, parent_id, num_kept, added, left_at, is_closed, bool(is_last))
    return key, found


def insert_session(connection: sqlite3.Connection, key: int, job: OpenSession) -> None:
    """Write a session's row."""
    opened = job.opened
    parent, num_steps = (None, None) if job.parent is None else job.parent
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        (
            key,
            as_text(opened.session_id),
            as_text(opened.place),
            job.opening,
            as_text(opened.agent),
            as_text(opened.model),
            parent,
            num_steps if opened.is_fork else None,
            opened.num_kept,
            as_json(list(opened.added)),
            job.at_epoch_s,
        ),
    )


def read_steps(connection: sqlite3.Connection, session: int) -> list[StepRow]:
    """Return the steps of a session, in order."""
    rows = connection.execute(
        "SELECT number, kind, told, members, num_kept, added, state, error, error_message, "
        "error_status FROM steps WHERE session = ? ORDER BY number",
        (session,),
    )
    return [_step(row) for row in rows]


def _step(row: tuple[Any, ...]) -> StepRow:
    number, kind, told, members, num_kept, added, state, name, message, status = row
    error = None if name is None else RecordedError(name, message, status)
    return StepRow(number, kind, told, members, num_kept, added, StepState(state), error)


def insert_step(connection: sqlite3.Connection, key: int, job: BeginStep) -> None:
    """Write a step that begins."""
    step = job.step
    connection.execute(
        "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?, NULL)",
        (
            key,
            job.session,
            step.number,
            step.kind,
            step.told,
            step.members,
            step.num_kept,
            step.added,
            step.state.value,
            job.at_epoch_s,
        ),
    )


def update_step(connection: sqlite3.Connection, job: MarkStep) -> None:
    """Write how far a step is."""
    error = job.error
    told = (None, None, None) if error is None else (error.name, error.message, error.status)
    over_epoch_s = None if job.state is StepState.RUNNING else job.at_epoch_s
    connection.execute(
        "UPDATE steps SET state = ?, error = ?, error_message = ?, error_status = ?, "
        "over_epoch_s = ? WHERE session = ? AND number = ?",
        (job.state.value, *told, over_epoch_s, job.session, job.number),
    )


def insert_message(connection: sqlite3.Connection, key: int, job: AddMessage) -> None:
    """Write a message."""
    usage = job.usage
    tokens: Sequence[int | None] = (None, None, None)
    if usage is not None:
        tokens = (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens)
    connection.execute(
        ADD_MESSAGE, (key, job.session, job.number, job.message, *tokens, job.at_epoch_s)
    )


def read_messages(
    connection: sqlite3.Connection, session: int, number: int
) -> list[tuple[Any, ...]]:
    """Return the messages of a step, each with prompt, cached and output tokens."""
    return connection.execute(MESSAGES, (session, number)).fetchall()


def update_closed(
    connection: sqlite3.Connection, session: int, closed_epoch_s: float | None
) -> None:
    """Write when a session was over, or that it is not."""
    connection.execute(
        "UPDATE sessions SET closed_epoch_s = ? WHERE id = ?", (closed_epoch_s, session)
    )


def update_left(connection: sqlite3.Connection, session: int, left_at: int) -> None:
    """Write when an error took the program out of a session."""
    connection.execute("UPDATE sessions SET left_at = ? WHERE id = ?", (left_at, session))


def read_beginning(connection: sqlite3.Connection, session: int) -> Beginning:
    """Return what a session begins with."""
    parent, forked_after, num_kept, added = connection.execute(
        "SELECT parent, forked_after, num_kept, added FROM sessions WHERE id = ?", (session,)
    ).fetchone()
    if forked_after is None:
        return Beginning(None, 0, 0, json.loads(added))
    return Beginning(parent, forked_after, num_kept, json.loads(added))


def went_on_without(connection: sqlite3.Connection, session: int, left_at: int, until: int) -> bool:
    """Return whether a session's parent did something after it had left it to its error."""
    span = (session, left_at, until)
    (went_on,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM sessions AS s JOIN steps AS t ON t.session = s.parent "
        "WHERE s.id = ? AND t.id > ? AND t.id <= ?) OR EXISTS (SELECT 1 FROM sessions AS s "
        "JOIN sessions AS c ON c.parent = s.parent JOIN steps AS t ON t.session = c.id "
        "JOIN messages AS m ON m.step = t.id WHERE s.id = ? AND c.id > ? AND c.id <= ?)",
        span + span,
    ).fetchone()
    return bool(went_on)


def read_summaries(connection: sqlite3.Connection, session_id: str | None) -> list[SessionSummary]:
    """Return all sessions, or all of one id, in the order in which they were opened."""
    name = None if session_id is None else as_text(session_id)
    return [SessionSummary.of(*row) for row in connection.execute(SUMMARIES, (name,))]
