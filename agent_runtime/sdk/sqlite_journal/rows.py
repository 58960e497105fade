"""What is written in a journal's tables and read back of them, row by row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded, SessionOpened, StepBegun, StepKind
from agent_runtime.sdk.sqlite_journal.recorded_errors import RecordedError
from agent_runtime.sdk.sqlite_journal.texts import as_json, as_text


class StepState(Enum):
    """How far a step is.

    running -> ended | failed | cancelled; failed -> running, when a later life tries again.
    """

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class StepRow:
    """A step as the table has it.

    Attributes:
        row_id: Its key.
        number: In its session, from 0.
        kind, told, members, num_kept, added: As begun; the last but one is a number of messages,
            members and added are JSON.
        state: How far it is.
        error: Why it failed.
    """

    row_id: int
    number: int
    kind: str
    told: str
    members: str
    num_kept: int
    added: str
    state: StepState
    error: RecordedError | None = None

    @classmethod
    def of(cls, row_id: int, number: int, begun: StepBegun) -> StepRow:
        """Return the row of a step that begins."""
        return cls(
            row_id,
            number,
            begun.kind.value,
            as_text(begun.told),
            as_json(dict(begun.members)),
            begun.num_kept,
            as_json(list(begun.added)),
            StepState.RUNNING,
        )

    def begun(self) -> StepBegun:
        """Return what it began with."""
        return StepBegun(
            StepKind(self.kind),
            self.told,
            self.num_kept,
            json.loads(self.added),
            json.loads(self.members),
        )


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as the table has it.

    Attributes:
        row_id: Its key.
        agent: Its agent's name.
        parent_id: The id of the session that started it.
        num_kept, added: What it begins with; JSON.
        left_at: When its program last left it with an error, in the order of all keys.
        is_closed: Whether it is over.
        is_last: Whether it is the last of its id at its place.
    """

    row_id: int
    agent: str
    parent_id: str | None
    num_kept: int
    added: str
    left_at: int | None
    is_closed: bool
    is_last: bool


def find_session(
    connection: sqlite3.Connection, opened: SessionOpened, opening: int
) -> SessionRow | None:
    """Return a session of an earlier life, or None.

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
    row_id, agent, parent_id, num_kept, added, left_at, closed_epoch_s, is_last = row
    is_closed = closed_epoch_s is not None
    return SessionRow(row_id, agent, parent_id, num_kept, added, left_at, is_closed, bool(is_last))


def insert_session(
    connection: sqlite3.Connection,
    row_id: int,
    opened: SessionOpened,
    opening: int,
    parent: tuple[int, int] | None,
    now_epoch_s: float,
) -> None:
    """Write a session's row.

    Args:
        connection: The journal.
        row_id: Its key.
        opened: What it begins with.
        opening: How often that id was opened there before, in this life.
        parent: The parent's key, and how many steps that had begun.
        now_epoch_s: When.
    """
    parent_row, num_steps = (None, None) if parent is None else parent
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        (
            row_id,
            as_text(opened.session_id),
            as_text(opened.place),
            opening,
            as_text(opened.agent),
            as_text(opened.model),
            parent_row,
            num_steps if opened.is_fork else None,
            opened.num_kept,
            as_json(list(opened.added)),
            now_epoch_s,
        ),
    )


def read_steps(connection: sqlite3.Connection, session_row: int) -> list[StepRow]:
    """Return the steps of a session, in order."""
    rows = connection.execute(
        "SELECT id, number, kind, told, members, num_kept, added, state, error, error_message, "
        "error_status FROM steps WHERE session = ? ORDER BY number",
        (session_row,),
    )
    return [_step(row) for row in rows]


def _step(row: tuple[Any, ...]) -> StepRow:
    row_id, number, kind, told, members, num_kept, added, state, name, message, status = row
    error = None if name is None else RecordedError(name, message, status)
    return StepRow(row_id, number, kind, told, members, num_kept, added, StepState(state), error)


def insert_step(
    connection: sqlite3.Connection, session_row: int, step: StepRow, now_epoch_s: float
) -> None:
    """Write a step that begins."""
    connection.execute(
        "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?, NULL)",
        (
            step.row_id,
            session_row,
            step.number,
            step.kind,
            step.told,
            step.members,
            step.num_kept,
            step.added,
            step.state.value,
            now_epoch_s,
        ),
    )


def update_step(
    connection: sqlite3.Connection,
    step_row: int,
    state: StepState,
    error: RecordedError | None,
    now_epoch_s: float,
) -> None:
    """Write how far a step is."""
    told = (None, None, None) if error is None else (error.name, error.message, error.status)
    over_epoch_s = None if state is StepState.RUNNING else now_epoch_s
    connection.execute(
        "UPDATE steps SET state = ?, error = ?, error_message = ?, error_status = ?, "
        "over_epoch_s = ? WHERE id = ?",
        (state.value, *told, over_epoch_s, step_row),
    )


def insert_message(
    connection: sqlite3.Connection,
    row_id: int,
    step_row: int,
    message: str,
    usage: Usage | None,
    now_epoch_s: float,
) -> None:
    """Write a message, which is JSON."""
    tokens: Sequence[int | None] = (None, None, None)
    if usage is not None:
        tokens = (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens)
    connection.execute(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row_id, step_row, message, *tokens, now_epoch_s),
    )


def read_recorded(connection: sqlite3.Connection, step: StepRow) -> Recorded:
    """Return what there is of a step."""
    rows: list[tuple[Any, ...]] = connection.execute(
        "SELECT message, prompt_tokens, cached_tokens, output_tokens FROM messages "
        "WHERE step = ? ORDER BY id",
        (step.row_id,),
    ).fetchall()
    messages: list[Message] = [json.loads(message) for message, *_ in rows]
    usages = [Usage(*tokens) for _, *tokens in rows if tokens[0] is not None]
    return Recorded(messages, usages, step.state is StepState.ENDED)


def went_on_without(
    connection: sqlite3.Connection, session_row: int, left_at: int, now: int
) -> bool:
    """Return whether a session's parent did something after it had left it to its error.

    Another step, or another child that came as far as an answer of the model. What was on its way
    when the error went through the program does not count.

    Args:
        connection: The journal.
        session_row: The session.
        left_at: When it was left, in the order of all keys.
        now: The last key of earlier lives.
    """
    span = (session_row, left_at, now)
    (went_on,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM sessions AS s JOIN steps AS t ON t.session = s.parent "
        "WHERE s.id = ? AND t.id > ? AND t.id <= ?) OR EXISTS (SELECT 1 FROM sessions AS s "
        "JOIN sessions AS c ON c.parent = s.parent JOIN steps AS t ON t.session = c.id "
        "JOIN messages AS m ON m.step = t.id WHERE s.id = ? AND c.id > ? AND c.id <= ?)",
        span + span,
    ).fetchone()
    return bool(went_on)
