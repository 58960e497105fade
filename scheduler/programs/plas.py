"""PLAS: agents that were served least so far go first, in a few exponential classes.

A call's priority is that of its program: what the program's finished calls were served, by class.
A program that has waited ``BETA`` times as long as it was served is in the first class. Long
prompts go to their program's engine, short ones to the least used.

Source: Autellix (Agentix), arXiv 2502.13965: ``p(c) = sum of service of the program's finished
calls``; K exponential queues; promotion when ``(W_p + W_c) / (T_p + T_c) >= beta``, then reset;
2,048 tokens. There the engine's own queue moves calls that wait; an engine behind a router takes a
priority once, with the call, so W_c and T_c are 0 here and a call under way is not demoted.
"""

from __future__ import annotations

from scheduler.cost import CostModel
from scheduler.programs.call_times import CallTimes
from scheduler.programs.replica_load import least_loaded
from scheduler.rack import Rack
from scheduler.session import Session, Turn

NUM_CLASSES = 8
FIRST_CLASS_S = 64.0
BETA = 8.0
SHORT_PROMPT_TOKENS = 2048


def service_class(service_s: float) -> int:
    """Return the class of an attained service: 0 below ``FIRST_CLASS_S``, each twice as long."""
    index = 0
    limit_s = FIRST_CLASS_S
    while service_s >= limit_s and index < NUM_CLASSES - 1:
        index += 1
        limit_s *= 2
    return index


def call_priority(program: CallTimes) -> int:
    """Return the priority of a program's next call: its class, or the first if it starves."""
    if program.wait_s > 0 and program.wait_s >= BETA * program.service_s:
        return 0
    return service_class(program.service_s)


class Plas:
    """Dispatches every call at once, with its program's priority."""

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._times: dict[Session, CallTimes] = {}

    @property
    def next_wake_s(self) -> float | None:
        """Never."""
        return None

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Dispatch it."""
        times = self._times.setdefault(turn.session, CallTimes())
        engine = turn.session.home
        if engine is None or turn.num_prompt_tokens <= SHORT_PROMPT_TOKENS:
            engine = least_loaded(rack.active_turns.loads, rack)
        rack.dispatch(turn, engine, priority=call_priority(times))

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:
        """Take note of how long it waited."""
        times = self._times[turn.session]
        times.prefilled(turn, num_cached_tokens, self._cost, rack.now_s)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Take note of how long it was served."""
        self._times[turn.session].ended(turn, rack.now_s)

    def session_closed(self, session: Session, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Forget its program."""
        del self._times[session]

    def woken(self, rack: Rack) -> None:
        """Nothing."""
