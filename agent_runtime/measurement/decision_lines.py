"""The event log: one JSON object a line for every decision, the same bytes for the same run."""

from __future__ import annotations

import json
from typing import Any

from scheduler.commands import Command, Dispatch, Drop, Pull, Refuse, Release, Retain
from scheduler.decision import Decision
from scheduler.events import (
    Event,
    GapHinted,
    PrefillEnded,
    ReplicaDown,
    ReplicaUp,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.receipt import Receipt


def decision_line(decision: Decision) -> str:
    """Return a decision as JSON, without the end of the line.

    Keys: ``t`` (emulated seconds), ``event`` (``turn_arrived``, ``prefill_ended``, ``turn_ended``,
    ``gap_hinted``, ``session_closed``, ``woken``, ``replica_down``, ``replica_up``) with what it
    says, ``do``: what was asked for, in order, and ``why``: the receipts of turns that were sent or
    held, with every option's seconds.
    """
    line: dict[str, Any] = {"t": decision.now_s, **_event(decision.event)}
    if decision.commands:
        line["do"] = [_command(command) for command in decision.commands]
    if decision.receipts:
        line["why"] = [receipt_entry(receipt) for receipt in decision.receipts]
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def receipt_entry(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as the event log has it, under ``why``."""
    return {
        "turn": receipt.turn_id,
        "chosen": receipt.chosen,
        "due": receipt.is_due,
        "options": [
            {
                "replica": option.replica_id,
                "ttft_s": option.ttft_s,
                "wait_s": option.wait_s,
                "move_s": option.move_s,
                "load_s": option.load_s,
                "prefill_s": option.prefill_s,
                "crowd_s": option.crowd_s,
                "decode_s": option.decode_s,
                "loss_s": option.loss_s,
                "cached_tokens": option.num_cached_tokens,
                "dropped_sessions": option.num_dropped_sessions,
            }
            for option in receipt.options
        ],
    }


def _event(event: Event) -> dict[str, Any]:
    match event:
        case TurnArrived() | PrefillEnded() | TurnEnded():
            return _turn_event(event)
        case Woken():
            return {"event": "woken"}
        case GapHinted():
            return {
                "event": "gap_hinted",
                "session": event.session_id,
                "cause": event.gap.cause.value,
                "expected_s": event.gap.expected_s,
            }
        case SessionClosed():
            return {"event": "session_closed", "session": event.session_id}
        case ReplicaDown():
            return {"event": "replica_down", "replica": event.replica_id}
        case ReplicaUp():
            return {"event": "replica_up", "replica": event.replica_id}


def _turn_event(event: TurnArrived | PrefillEnded | TurnEnded) -> dict[str, Any]:
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
        case PrefillEnded():
            prefilled = {
                "event": "prefill_ended",
                "turn": event.turn_id,
                "cached_tokens": event.num_cached_tokens,
            }
            return prefilled if event.first_token_seen else {**prefilled, "first_token_seen": False}
        case TurnEnded():
            return {
                "event": "turn_ended",
                "turn": event.turn_id,
                "context_tokens": event.num_context_tokens,
            }


def _command(command: Command) -> dict[str, Any]:
    match command:
        case Dispatch():
            return {
                "do": "dispatch",
                "turn": command.turn_id,
                "replica": command.replica_id,
                "cached_tokens": command.num_expected_cached_tokens,
            }
        case Refuse():
            return {
                "do": "refuse",
                "turn": command.turn_id,
                "limit_tokens": command.limit_tokens,
            }
        case Pull():
            return {
                "do": "pull",
                "session": command.session_id,
                "from": command.source_id,
                "replica": command.replica_id,
                "ready_s": command.ready_s,
            }
        case Retain() | Release() | Drop():
            return {
                "do": type(command).__name__.lower(),
                "session": command.session_id,
                "replica": command.replica_id,
            }
