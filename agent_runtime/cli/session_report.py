"""Sessions of a journal for a terminal, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_runtime.sdk.conversation import Message, ToolCall
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journaling.stored import StoredStep, in_order
from agent_runtime.sdk.journaling.summaries import SessionSummary

MAX_SHOWN = 600
"""Characters of a text that are shown, unless all are asked for."""
STATE_STYLES = {"running": "yellow", "waiting": "cyan", "failed": "red", "closed": "dim"}


def sessions_table(summaries: Iterable[SessionSummary]) -> Table:
    """Return one row a session."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("session", "agent", "model"):
        table.add_column(name, overflow="fold", min_width=len(name))
    table.add_column("state", no_wrap=True)
    for name in ("steps", "turns", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last activity", no_wrap=True)
    table.add_column("parent", overflow="fold", min_width=6)
    for summary in summaries:
        state = summary.state.value
        table.add_row(
            Text(summary.session_id),
            Text(summary.agent),
            Text(summary.model),
            Text(state, style=STATE_STYLES[state]),
            f"{summary.num_steps:,}",
            f"{summary.num_turns:,}",
            f"{summary.usage.total_tokens:,}",
            _time(summary.last_epoch_s),
            Text(summary.parent_id or ""),
        )
    return table


def summary_as_json(summary: SessionSummary) -> dict[str, Any]:
    """Return a session in a line as JSON."""
    members = dataclasses.asdict(summary)
    del members["key"]
    return {**members, "state": summary.state.value}


def session_as_json(summary: SessionSummary, steps: Sequence[StoredStep]) -> dict[str, Any]:
    """Return a session with all it said and did as JSON."""
    return {
        **summary_as_json(summary),
        "steps": [
            {
                "kind": step.begun.kind.value,
                "told": step.begun.told,
                "state": step.state.value,
                "error": None if step.error is None else dataclasses.asdict(step.error),
                "num_turns": len(step.recorded.usages),
                "usage": dataclasses.asdict(step.usage),
                "messages_before": list(step.before),
                "messages": in_order(step.recorded.messages),
            }
            for step in steps
        ],
    }


def show_session(
    console: Console, summary: SessionSummary, steps: Sequence[StoredStep], *, full: bool
) -> None:
    """Print a session, step by step.

    Args:
        console: Where.
        summary: The session.
        steps: All of its steps.
        full: Whether long texts are printed whole.
    """
    state = summary.state.value
    console.print(
        Text.assemble(
            (summary.session_id, "bold"),
            f"  agent {summary.agent}, model {summary.model}, ",
            (state, STATE_STYLES[state]),
            f", {_tokens(summary.usage)}",
        )
    )
    parent = "" if summary.parent_id is None else f", of session {summary.parent_id}"
    call = f", in its tool call {summary.place}" if summary.place else ""
    times = f"opened {_time(summary.opened_epoch_s)}, last {_time(summary.last_epoch_s)}"
    console.print(Text(f"{times}{parent}{call}", style="dim"))
    shown: Sequence[Message] = ()
    for number, step in enumerate(steps, 1):
        _show_before(console, shown, step.before, full=full)
        _show_step(console, number, step, full=full)
        shown = step.after
    if not steps:
        console.print("nothing was said yet")


def _show_before(
    console: Console, shown: Sequence[Message], before: Sequence[Message], *, full: bool
) -> None:
    """Print what of a conversation is not to be seen above, and say what is there no more."""
    num_same = 0
    for message, other in zip(shown, before, strict=False):
        if message != other:
            break
        num_same += 1
    if num_same < len(shown):
        console.print(Text(f"\ngoes on from message {num_same}; later ones are left", "magenta"))
    for message in before[num_same:]:
        _show_message(console, message, full=full)


def _show_step(console: Console, number: int, step: StoredStep, *, full: bool) -> None:
    console.print()
    num_turns = len(step.recorded.usages)
    heading = f"step {number}: {step.begun.kind.value}, {step.state.value}"
    console.rule(
        Text(f"{heading}, {num_turns:,} turns, {_tokens(step.usage)}", style="bold"), align="left"
    )
    _show_message(console, {"role": "user", "content": step.begun.told}, full=full)
    for message in in_order(step.recorded.messages):
        _show_message(console, message, full=full)
    for call in step.open_calls:
        console.print(Text(f"{call.name}: no result yet", style="yellow"))
    if step.error is not None:
        console.print(Text(f"{step.error.name}: {step.error.message}", style="red"))


def _show_message(console: Console, message: Message, *, full: bool) -> None:
    text = str(message.get("content") or "")
    if not full and len(text) > MAX_SHOWN:
        text = f"{text[:MAX_SHOWN]}... ({len(text) - MAX_SHOWN:,} more characters, --full)"
    role = str(message["role"])
    if role == "tool":
        console.print(Text(f"  result of {message['tool_call_id']}: {text}", style="dim"))
    elif text:
        console.print(Text.assemble((f"{role}: ", "bold"), text))
    for call in message.get("tool_calls") or ():
        told = ToolCall.of(call)
        called = f"  calls {told.name} {told.arguments} ({told.call_id})"
        console.print(Text(called, style="cyan"))


def _tokens(usage: Usage) -> str:
    return (
        f"{usage.prompt_tokens:,} prompt tokens ({usage.cached_tokens:,} cached), "
        f"{usage.output_tokens:,} output tokens"
    )


def _time(epoch_s: float) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
