"""The event log: one JSON object a line for every decision, the same bytes for the same run."""

from __future__ import annotations

import json
from typing import Any

from scheduler.commands import Command, Dispatch, Refuse
from scheduler.decision import Decision
from scheduler.events import Event, SessionClosed, TurnArrived, TurnEnded


def decision_line(decision: Decision) -> str:
    """Return a decision as JSON, without the end of the line.

    Keys: ``t`` (emulated seconds), ``event`` (``turn_arrived``, ``turn_ended``,
    ``session_closed``) with what it says, and ``do``: ``dispatch`` to a ``replica``, or ``refuse``.
    """
    line = {"t": decision.now_s, **_event(decision.event)}
    for command in decision.commands:
        line |= _command(command)
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _event(event: Event) -> dict[str, Any]:
    match event:
        case TurnArrived():
            arrived = {
                "event": "turn_arrived",
                "turn": event.turn_id,
                "session": event.session_id,
                "prompt_tokens": event.num_prompt_tokens,
                "output_tokens": event.num_output_tokens,
            }
            return arrived if event.parent_id is None else {**arrived, "parent": event.parent_id}
        case TurnEnded():
            return {
                "event": "turn_ended",
                "turn": event.turn_id,
                "context_tokens": event.num_context_tokens,
            }
        case SessionClosed():
            return {"event": "session_closed", "session": event.session_id}


def _command(command: Command) -> dict[str, Any]:
    match command:
        case Dispatch():
            return {"do": "dispatch", "replica": command.replica_id}
        case Refuse():
            return {"do": "refuse", "limit_tokens": command.limit_tokens}
