"""Sessions as a journal has them, for people and for going on without their programs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent_runtime.errors import ConfigError
from agent_runtime.sdk.conversation import Conversation, Message, ToolCall
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded, StepBegun, StepKind
from agent_runtime.sdk.sqlite_journal.recorded_errors import RecordedError
from agent_runtime.sdk.sqlite_journal.rows import StepState, read_recorded, read_steps


class SessionState(Enum):
    """Of a session as a whole."""

    RUNNING = "running"  # a step is under way, or was when the program ended
    WAITING = "waiting"  # for its program to tell it something
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session in a line.

    Attributes:
        row_id: Its key in the table.
        session_id: Its id, which others may have had at other times.
        agent: Its agent's name.
        model: Which it asks.
        state: What it does.
        num_steps: Begun.
        num_turns: The model's messages.
        usage: Of these.
        parent_id: The session that started it.
        place: The tool call in which it was opened, or nothing.
        opened_epoch_s, last_epoch_s: When it began, and when something last happened.
    """

    row_id: int
    session_id: str
    agent: str
    model: str
    state: SessionState
    num_steps: int
    num_turns: int
    usage: Usage
    parent_id: str | None
    place: str
    opened_epoch_s: float
    last_epoch_s: float


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step.

    Attributes:
        begun: What it began with.
        before: The conversation then.
        recorded: What came of it.
        state: How far it is.
        error: Why it failed.
    """

    begun: StepBegun
    before: Sequence[Message]
    recorded: Recorded
    state: StepState
    error: RecordedError | None

    @property
    def after(self) -> list[Message]:
        """The conversation with all that there is of the step."""
        told = {"role": "user", "content": self.begun.told}
        return [*self.before, told, *in_order(self.recorded.messages)]

    @property
    def usage(self) -> Usage:
        """Of its model calls."""
        return sum(self.recorded.usages, Usage())

    @property
    def open_calls(self) -> list[ToolCall]:
        """What the model wants called and has no result yet."""
        return Conversation(self.after).open_calls()


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


def read_summaries(
    connection: sqlite3.Connection, session_id: str | None = None
) -> list[SessionSummary]:
    """Return all sessions, or all of one id, in the order in which they were opened."""
    rows = connection.execute(SUMMARIES, (session_id,))
    return [
        SessionSummary(
            row_id,
            name,
            agent,
            model,
            _state(step, is_closed=closed is not None),
            num_steps,
            num_turns,
            Usage(prompt, cached, output),
            parent_id,
            place,
            opened_s,
            last_s,
        )
        for (
            row_id,
            name,
            agent,
            model,
            closed,
            step,
            num_steps,
            num_turns,
            prompt,
            cached,
            output,
            parent_id,
            place,
            opened_s,
            last_s,
        ) in rows
    ]


def read_stored_steps(connection: sqlite3.Connection, session_row: int) -> list[StoredStep]:
    """Return the steps of a session, each with the conversation that it began with."""
    first = _first_messages(connection, session_row)
    steps: list[StoredStep] = []
    for row in read_steps(connection, session_row):
        begun = row.begun()
        before = [*_left_by(steps, first)[: begun.num_kept], *begun.added]
        recorded = read_recorded(connection, row)
        steps.append(StoredStep(begun, before, recorded, row.state, row.error))
    return steps


def last_of_id(connection: sqlite3.Connection, session_id: str, path: Path) -> SessionSummary:
    """Return the session that had an id last.

    Raises:
        ConfigError: There is none.
    """
    found = read_summaries(connection, session_id)
    if not found:
        raise ConfigError(
            f"journal {path} has no session {session_id!r}; 'panjiu sessions list {path}' shows "
            "those it has"
        )
    return found[-1]


def check_unfinished(summary: SessionSummary, steps: Sequence[StoredStep]) -> None:
    """See to it that a session has a run to go on with.

    Raises:
        ConfigError: It has none.
    """
    if summary.state not in (SessionState.RUNNING, SessionState.FAILED):
        raise ConfigError(
            f"session {summary.session_id} has nothing to resume: it is {summary.state.value}, and "
            "no run of it is under way; a program goes on with it when it runs again"
        )
    if steps[-1].begun.kind is not StepKind.RUN:
        raise ConfigError(
            f"session {summary.session_id} was being compacted; its program goes on with that when "
            "it runs again"
        )


def in_order(messages: Sequence[Message]) -> list[Message]:
    """Return messages with the results of tools, which come as they are done, in calls' order."""
    ordered: list[Message] = []
    results: dict[str, Message] = {}
    calls: list[str] = []
    for message in [*messages, None]:
        if message is not None and message["role"] == "tool":
            results[message["tool_call_id"]] = message
            continue
        ordered.extend(results[call_id] for call_id in calls if call_id in results)
        if message is not None:
            ordered.append(message)
            results = {}
            calls = [ToolCall.of(call).call_id for call in message.get("tool_calls") or ()]
    return ordered


def _first_messages(connection: sqlite3.Connection, session_row: int) -> list[Message]:
    """Return what a session began with; a fork's is the beginning of its parent's conversation."""
    parent, forked_after, num_kept, added = connection.execute(
        "SELECT parent, forked_after, num_kept, added FROM sessions WHERE id = ?", (session_row,)
    ).fetchone()
    if forked_after is None:
        return list(json.loads(added))
    steps = read_stored_steps(connection, parent)[:forked_after]
    conversation = _left_by(steps, _first_messages(connection, parent))
    return [*conversation[:num_kept], *json.loads(added)]


def _left_by(steps: Sequence[StoredStep], first: Sequence[Message]) -> Sequence[Message]:
    """Return the conversation that steps leave behind them: that of the last run that ended."""
    for step in reversed(steps):
        if step.begun.kind is StepKind.RUN and step.state is StepState.ENDED:
            return step.after
    return first


def _state(last_step: str | None, *, is_closed: bool) -> SessionState:
    if is_closed:
        return SessionState.CLOSED
    if last_step == StepState.RUNNING.value:
        return SessionState.RUNNING
    if last_step == StepState.FAILED.value:
        return SessionState.FAILED
    return SessionState.WAITING
