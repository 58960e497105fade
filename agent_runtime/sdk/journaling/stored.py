"""What a journal has of sessions, for people and for going on without their programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.errors import ConfigError
from agent_runtime.sdk.conversation import Conversation, Message, ToolCall
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded, StepBegun, StepKind
from agent_runtime.sdk.journaling.recorded_errors import RecordedError
from agent_runtime.sdk.journaling.rows import StepState
from agent_runtime.sdk.journaling.store import Reader
from agent_runtime.sdk.journaling.summaries import SessionState, SessionSummary


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


def stored_steps(reader: Reader, session: int) -> list[StoredStep]:
    """Return the steps of a session, each with the conversation that it began with."""
    first = _first_messages(reader, session)
    steps: list[StoredStep] = []
    for row in reader.steps(session):
        begun = row.begun()
        before = [*_left_by(steps, first)[: begun.num_kept], *begun.added]
        recorded = reader.recorded(session, row)
        steps.append(StoredStep(begun, before, recorded, row.state, row.error))
    return steps


def last_of_id(found: Sequence[SessionSummary], session_id: str, journal: str) -> SessionSummary:
    """Return the session that had an id last.

    Args:
        found: All of that id.
        session_id: The id.
        journal: Its name.

    Raises:
        ConfigError: There is none.
    """
    if not found:
        raise ConfigError(
            f"journal {journal} has no session {session_id!r}; 'panjiu sessions list {journal}' "
            "shows those it has"
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


def _first_messages(reader: Reader, session: int) -> list[Message]:
    """Return what a session began with; a fork's is the beginning of its parent's conversation."""
    beginning = reader.beginning(session)
    if beginning.parent is None:
        return list(beginning.added)
    steps = stored_steps(reader, beginning.parent)[: beginning.forked_after]
    conversation = _left_by(steps, _first_messages(reader, beginning.parent))
    return [*conversation[: beginning.num_kept], *beginning.added]


def _left_by(steps: Sequence[StoredStep], first: Sequence[Message]) -> Sequence[Message]:
    """Return the conversation that steps leave behind them: that of the last run that ended."""
    for step in reversed(steps):
        if step.begun.kind is StepKind.RUN and step.state is StepState.ENDED:
            return step.after
    return first
