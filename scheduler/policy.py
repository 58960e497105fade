"""The seam between the cluster scheduler and its policies.

A policy is told of every turn and answers through the rack: it may dispatch a turn at once, hold it
and dispatch it later, and have KV kept, moved or given up. It never waits; it says when it wants to
be woken.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from typing_extensions import override

from scheduler.ids import ReplicaId
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class Policy(Protocol):
    """Decides; every method may act on the rack.

    A turn that ``turn_arrived`` does not dispatch is held; the policy must dispatch it one day.
    """

    @property
    def next_wake_s(self) -> float | None:
        """When ``woken`` is to be called next; None for never."""
        ...

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """A turn wants to run. ``turn.session.last_ended_s`` is when its tool gap began."""
        ...

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:
        """A dispatched turn has its first token."""
        ...

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """A turn is over; it is off its replica. One still held is withdrawn."""
        ...

    def session_closed(self, session: Session, rack: Rack) -> None:
        """A session without active turns is forgotten."""
        ...

    def woken(self, rack: Rack) -> None:
        """The time asked for has come, or passed."""
        ...


class Placement(NamedTuple):
    """Where a turn runs, and how much of its prompt is expected to be there."""

    replica_id: ReplicaId
    num_cached_tokens: int = 0


class PlacementPolicy(Protocol):
    """Names the replica a turn runs on at once: what a request router does."""

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:
        """Return a replica, ``0 <= id < rack.num_replicas``."""
        ...


class RememberingPlacement(PlacementPolicy, Protocol):
    """A placement that keeps something of turns or sessions, and gives it up with them."""

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """A turn it placed is over."""
        ...

    def session_closed(self, session: Session, rack: Rack) -> None:
        """A session without active turns is forgotten."""
        ...


class PlaceAtOnce:
    """A ``Policy`` that dispatches every turn when it comes."""

    def __init__(self, placement: PlacementPolicy) -> None:
        self._placement = placement

    @property
    def next_wake_s(self) -> float | None:
        """Never."""
        return None

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Dispatch it."""
        replica, num_cached_tokens = self._placement.place(turn, turn.session, rack)
        rack.dispatch(turn, replica, num_cached_tokens=num_cached_tokens)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:
        """Nothing."""

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Nothing."""

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Nothing."""

    def woken(self, rack: Rack) -> None:
        """Nothing."""


class PlaceAndRemember(PlaceAtOnce):
    """``PlaceAtOnce`` that tells its placement what ends."""

    def __init__(self, placement: RememberingPlacement) -> None:
        super().__init__(placement)
        self._memory = placement

    @override
    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Tell it."""
        self._memory.turn_ended(turn, rack)

    @override
    def session_closed(self, session: Session, rack: Rack) -> None:
        """Tell it."""
        self._memory.session_closed(session, rack)
