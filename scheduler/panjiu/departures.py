"""Turns that have a place and can't go there yet."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from scheduler.ids import ReplicaId
from scheduler.session import Turn


class Departure(NamedTuple):
    """A turn with a place.

    Attributes:
        num_cached_tokens: Of its prompt, expected to be there.
        at_s: When it goes at the latest.
    """

    turn: Turn
    replica_id: ReplicaId
    num_cached_tokens: int
    at_s: float


class Departures:
    """Turns whose KV is on its way, and long prefills that wait until nobody decodes there.

    Invariant: a turn added and not taken is in ``_going`` and has an entry in ``_by_time``; if it
        drains its replica, it is among that one's ``_draining``, too. Other entries are stale.
    """

    __slots__ = ("_by_time", "_draining", "_going", "_num_added")

    def __init__(self) -> None:
        self._going: dict[Turn, Departure] = {}
        self._by_time: list[tuple[float, int, Turn]] = []
        self._draining: dict[ReplicaId, list[Turn]] = {}
        self._num_added = 0

    @property
    def next_s(self) -> float | None:
        """When the next one goes at the latest."""
        heap = self._by_time
        while heap:
            at_s, _, turn = heap[0]
            departure = self._going.get(turn)
            if departure is not None and departure.at_s == at_s:
                return at_s
            heapq.heappop(heap)
        return None

    def add(self, departure: Departure, *, is_draining: bool) -> None:
        """Have a turn go at its time; one that drains as soon as nobody decodes there."""
        turn = departure.turn
        self._num_added += 1
        self._going[turn] = departure
        heapq.heappush(self._by_time, (departure.at_s, self._num_added, turn))
        if is_draining:
            self._draining.setdefault(departure.replica_id, []).append(turn)

    def withdraw(self, turn: Turn) -> None:
        """Have it go nowhere; once is enough."""
        self._going.pop(turn, None)

    def due(self, now_s: float) -> list[Departure]:
        """Take those whose time has come."""
        taken: list[Departure] = []
        while (next_s := self.next_s) is not None and next_s <= now_s:
            taken.append(self._going.pop(self._by_time[0][2]))
        return taken

    def drained(self, replica_id: ReplicaId) -> list[Departure]:
        """Take those that waited for a replica on which nobody decodes any more."""
        return self._take(self._draining.pop(replica_id, ()))

    def stranded(self, replica_id: ReplicaId) -> list[Departure]:
        """Take all that were to go to a replica. O(departures)."""
        self._draining.pop(replica_id, None)
        there = [turn for turn, going in self._going.items() if going.replica_id == replica_id]
        return self._take(there)

    def _take(self, turns: Iterable[Turn]) -> list[Departure]:
        return [self._going.pop(turn) for turn in turns if turn in self._going]
