"""Engines in slots: which server is which replica, and which of them take turns. Sans-IO.

The scheduler knows a fixed number of replicas; servers come and go. Each takes a free slot, and a
slot without a server is a replica that is down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from agent_runtime.backends.vllm_servers.circuit_breaker import BreakerSettings, CircuitBreaker
from agent_runtime.backends.vllm_servers.engine_facts import EngineFacts, EventSource
from agent_runtime.backends.vllm_servers.engine_metrics import NO_METRICS, EngineMetrics
from agent_runtime.errors import InternalError
from scheduler.events import ReplicaDown, ReplicaUp
from scheduler.ids import ReplicaId, SessionId, TurnId


class SlotState(Enum):
    """What a slot's engine does."""

    EMPTY = auto()
    """There is none."""
    DOWN = auto()
    """It was not heard of yet, or failed."""
    UP = auto()
    """It takes turns."""
    DRAINING = auto()
    """It takes none; those that run there go on to their end."""


_NEXT = {
    SlotState.EMPTY: {SlotState.DOWN},
    SlotState.DOWN: {SlotState.UP, SlotState.DRAINING, SlotState.EMPTY},
    SlotState.UP: {SlotState.DOWN, SlotState.DRAINING},
    SlotState.DRAINING: {SlotState.DOWN, SlotState.EMPTY},
}


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """A server that somebody wants used.

    Attributes:
        url: Without a path.
        drain: Whether it is to take no more turns.
        events: Where its KV events are, if it doesn't say so itself.
    """

    url: str
    drain: bool = False
    events: EventSource | None = None


class EngineSlot:
    """A place for an engine, for good one of the scheduler's replicas."""

    __slots__ = (
        "address", "breaker", "facts", "has_events", "metrics", "num_answers", "num_failures",
        "num_prefilling", "problem", "replica_id", "state", "turns",
    )  # fmt: skip

    def __init__(self, replica_id: ReplicaId) -> None:
        self.replica_id = replica_id
        self.state = SlotState.EMPTY
        self.address: EngineAddress | None = None
        self.breaker = CircuitBreaker()
        self.facts: EngineFacts | None = None
        self.metrics: EngineMetrics = NO_METRICS
        self.has_events = False  # and they are being read
        self.problem = ""
        self.turns: dict[TurnId, SessionId] = {}  # under way there
        self.num_prefilling = 0  # of these, without a first token
        self.num_answers = 0  # that began, of turns
        self.num_failures = 0  # of all engines that were here


class EngineFleet:
    """All slots.

    Args:
        max_engines: Slots.
        breaker: When engines count as failed.

    Attributes:
        slots: By replica id.
        num_up: Engines that take turns.
        on_change: Told of replicas that go and come back.
        notice: Told, in words, what an operator should know.

    Invariant: ``num_up`` counts the slots that are ``UP``, and ``on_change`` was last told
        ``ReplicaUp`` exactly of these; at first, all are down.
    """

    def __init__(self, max_engines: int, breaker: BreakerSettings | None = None) -> None:
        self.slots = [EngineSlot(ReplicaId(number)) for number in range(max_engines)]
        self._breaker = breaker
        self._left_out: set[str] = set()
        self._cards: list[dict[str, object]] | None = None  # until an engine has others
        self.num_up = 0
        self.on_change: Callable[[ReplicaDown | ReplicaUp], None] = lambda _: None
        self.notice: Callable[[str], None] = lambda _: None

    def up(self) -> list[EngineSlot]:
        """Return the slots whose engines take turns."""
        return [slot for slot in self.slots if slot.state is SlotState.UP]

    def cards(self) -> list[dict[str, object]]:
        """Return the models served, each once, as their engines describe them."""
        if self._cards is None:
            cards: dict[str, dict[str, object]] = {}
            for slot in self.slots:
                for card in () if slot.facts is None else slot.facts.cards:
                    cards.setdefault(str(card["id"]), card)
            self._cards = list(cards.values())
        return self._cards

    def reconcile(self, wanted: Iterable[EngineAddress]) -> list[EngineSlot]:
        """Give new servers a slot and drain those no longer wanted; return the new slots."""
        by_url = {address.url: address for address in wanted}
        for slot in self.slots:
            if slot.address is None:
                continue
            address = by_url.pop(slot.address.url, None)
            if address is None or address.drain:
                self.drain(slot)
            elif slot.state is SlotState.DRAINING:
                slot.address = address
                self._to(slot, SlotState.DOWN)  # the next look at it brings it up
        new = []
        for address in by_url.values():
            if address.drain:
                continue
            free = next((slot for slot in self.slots if slot.state is SlotState.EMPTY), None)
            if free is None:
                self._tell_of_no_room(address)
                continue
            self._left_out.discard(address.url)
            free.address, free.breaker = address, CircuitBreaker(self._breaker)
            self._to(free, SlotState.DOWN)
            new.append(free)
        return new

    def drain(self, slot: EngineSlot) -> None:
        """Send an engine no more turns; it leaves its slot when those under way have ended."""
        if slot.state in {SlotState.UP, SlotState.DOWN}:
            self._to(slot, SlotState.DRAINING)
            self.notice(f"{_name(slot)} drains, {len(slot.turns)} turns under way")

    def leave_if_drained(self, slot: EngineSlot) -> None:
        """Empty the slot of an engine that has drained; for who watches it, and then ends."""
        if slot.state is SlotState.DRAINING and not slot.turns:
            self.notice(f"{_name(slot)} has drained and is out")
            self._to(slot, SlotState.EMPTY)
            slot.address, slot.facts, slot.metrics, slot.problem = None, None, NO_METRICS, ""
            self._cards = None

    def present(self, slot: EngineSlot, facts: EngineFacts) -> None:
        """Take in what an engine says of itself, and let it take turns if it may."""
        slot.facts, slot.metrics = facts, facts.metrics
        self._cards = None
        if slot.state is not SlotState.DOWN:
            return
        others = {model for other in self.up() if other.facts for model in other.facts.models}
        if others and not others & set(facts.models):
            slot.problem = f"it serves {', '.join(facts.models)}, not {', '.join(sorted(others))}"
            self.notice(f"{_name(slot)} is left out: {slot.problem}")
            return
        slot.problem = ""
        self._to(slot, SlotState.UP)
        self.notice(f"{_name(slot)} is up: {describe(facts)}")

    def fail(self, slot: EngineSlot, now_s: float, problem: str, *, certain: bool = False) -> None:
        """Count a failure of an engine; too many take it down."""
        slot.breaker.failed(now_s, certain=certain)
        slot.num_failures += 1
        if not slot.breaker.is_closed and slot.state is SlotState.UP:
            self._to(slot, SlotState.DOWN)
            self.notice(f"{_name(slot)} is down: {problem}")
        slot.problem = problem

    def _tell_of_no_room(self, address: EngineAddress) -> None:
        if address.url not in self._left_out:
            self._left_out.add(address.url)
            taken = f"all {len(self.slots)} slots are taken; raise --max-engines"
            self.notice(f"{address.url} waits until another engine leaves: {taken}")

    def _to(self, slot: EngineSlot, state: SlotState) -> None:
        if state not in _NEXT[slot.state]:
            raise InternalError(f"slot {slot.replica_id} went from {slot.state} to {state}")
        before, slot.state = slot.state, state
        self.num_up += (state is SlotState.UP) - (before is SlotState.UP)
        if before is SlotState.UP:
            self.on_change(ReplicaDown(slot.replica_id))
        elif state is SlotState.UP:
            self.on_change(ReplicaUp(slot.replica_id))


def describe(facts: EngineFacts) -> str:
    """Return what an engine is in a line."""
    kv = facts.metrics.kv_tokens
    room = "KV of unknown size" if kv is None else f"KV of {kv:,} tokens"
    events = "no KV events" if facts.events is None else f"KV events at {facts.events.endpoint}"
    return "; ".join((", ".join(facts.models), room, events, *facts.notices))


def _name(slot: EngineSlot) -> str:
    return f"engine {slot.replica_id}" + (f", {slot.address.url}," if slot.address else "")
