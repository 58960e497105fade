"""Continuum: an agent's KV is kept through its tool call for a time, and old agents go first.

When a turn ends, its KV is kept for a time to live that a rule gives. Turns whose KV is kept go
before others, and then those of the program that came first. When the head of a queue can't be
admitted, the program that came last loses its pin.

Source: Continuum, arXiv 2511.02230, and its public code for the life of a pin: it outlasts its time
while the next turn waits, and ends when that is admitted (here: prefilled). An engine takes a
priority with the call; that preempted requests go first of all is vLLM's own doing.
"""

from __future__ import annotations

from typing import Protocol

from scheduler.cost import CostModel
from scheduler.ids import ReplicaId
from scheduler.programs.pins import Pins
from scheduler.programs.tool_gaps import ended_gap_s, gap_class
from scheduler.rack import Rack
from scheduler.session import Session, Turn

UNPINNED = 1 << 40
"""Added to the priority of turns whose KV is not kept."""


class TtlRule(Protocol):
    """Says how long KV is kept."""

    def saw_gap(self, name: str, gap_s: float) -> None:
        """Learn from a gap of a class that has ended."""
        ...

    def saw_wait(self, wait_s: float) -> None:
        """Learn from what a turn waited, beyond its prefill."""
        ...

    def saw_end(self, num_turns: int) -> None:
        """Learn from a program that is over."""
        ...

    def ttl_s(self, session: Session, name: str) -> float:
        """Return how long to keep a session's KV in a gap of a class; 0 for not at all."""
        ...


class Continuum:
    """Keeps every session on its replica; a new one goes where the least context is.

    Args:
        rule: How long KV is kept.
        cost: To tell waiting from prefill.
    """

    def __init__(self, rule: TtlRule, cost: CostModel) -> None:
        self._rule = rule
        self._cost = cost
        self._priorities: dict[Turn, int] = {}
        self._pins = Pins(self._priorities.__getitem__, lambda session, _: session.order)

    @property
    def next_wake_s(self) -> float | None:
        """When a pin ends, or a queue may stand still."""
        return self._pins.next_wake_s

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Dispatch it, by whether its KV is kept and when its program came."""
        session = turn.session
        gap_s = ended_gap_s(turn, rack.now_s)
        if gap_s is not None:
            self._rule.saw_gap(gap_class(session.gap), gap_s)
        priority = session.order
        if not self._pins.holds(session, rack.now_s):
            priority += UNPINNED
        replica = rack.session_tokens.least() if session.home is None else session.home
        self._priorities[turn] = priority
        rack.dispatch(turn, replica, priority=priority)
        self._pins.make_room(replica, rack)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:
        """Unpin: the turn holds its KV itself now."""
        wait_s = rack.now_s - turn.arrived_s
        wait_s -= self._cost.prefill_s(num_cached_tokens, turn.num_prompt_tokens)
        self._rule.saw_wait(max(0.0, wait_s))
        self._pins.unpin(turn.session, rack)
        self._make_room(turn.replica_id, rack)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Pin its KV, if that is worth it."""
        del self._priorities[turn]
        session, replica = turn.session, turn.replica_id
        if session.num_active_turns == 0 and not session.closed and replica is not None:
            ttl_s = self._rule.ttl_s(session, gap_class(session.gap))
            if ttl_s > 0:
                self._pins.pin(session, replica, rack.now_s + ttl_s, rack)
        self._make_room(replica, rack)

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Give up its KV."""
        self._rule.saw_end(session.num_turns_ended)
        self._pins.drop(session, rack)

    def woken(self, rack: Rack) -> None:
        """Unpin whose time is over."""
        for session in self._pins.due(rack.now_s):
            self._pins.unpin(session, rack)
        self._pins.look_again(rack)

    def _make_room(self, replica_id: ReplicaId | None, rack: Rack) -> None:
        if replica_id is not None:
            self._pins.make_room(replica_id, rack)
