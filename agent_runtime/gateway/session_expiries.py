"""When sessions that nobody asks for may be forgotten."""

from __future__ import annotations

import heapq
import itertools

from scheduler.ids import SessionId

FEW = 64
"""Entries that are not worth looking through."""


class SessionExpiries:
    """The time of every session, the earliest first. It keeps no session in memory.

    Invariant: ``_numbers`` has the number of each session's entry; entries of other numbers are
        stale, and about as many as the others at most.
    """

    __slots__ = ("_counter", "_heap", "_numbers")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, SessionId]] = []
        self._numbers: dict[SessionId, int] = {}
        self._counter = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def expect(self, session_id: SessionId, at_s: float) -> None:
        """Note a session's time, instead of another one it had."""
        number = self._numbers[session_id] = next(self._counter)
        heapq.heappush(self._heap, (at_s, number, session_id))

    def drop(self, session_id: SessionId) -> None:
        """Forget a session's time. O(log sessions) amortised."""
        self._numbers.pop(session_id, None)
        if len(self._heap) > 2 * len(self._numbers) + FEW:
            self._heap = [entry for entry in self._heap if self._numbers.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def take_before(self, now_s: float) -> SessionId | None:
        """Return a session whose time was before now, which then has none; None without one."""
        while self._heap and self._heap[0][0] < now_s:
            _, number, session_id = heapq.heappop(self._heap)
            if self._numbers.get(session_id) == number:
                del self._numbers[session_id]
                return session_id
        return None
