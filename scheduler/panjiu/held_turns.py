"""The turns that wait for a place, the least work first."""

from __future__ import annotations

import heapq

from scheduler.session import Turn


class HeldTurns:
    """A heap of turns by what they cost, and beside it those whose patience has run out.

    Invariant: a turn added and not taken is in ``_turns``; heap entries of others are stale.
    """

    __slots__ = ("_by_weight", "_due", "_orders", "_turns")

    def __init__(self) -> None:
        self._by_weight: list[tuple[float, int, Turn]] = []
        self._due: list[tuple[float, int, Turn]] = []
        self._turns: set[Turn] = set()
        self._orders = 0

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, turn: Turn) -> bool:
        return turn in self._turns

    def add(self, turn: Turn, weight: float, due_s: float) -> None:
        """Hold a turn.

        Args:
            turn: Not held yet.
            weight: Smaller goes first.
            due_s: When it goes before all that are not due.
        """
        self._orders += 1
        self._turns.add(turn)
        heapq.heappush(self._by_weight, (weight, self._orders, turn))
        heapq.heappush(self._due, (due_s, self._orders, turn))

    def remove(self, turn: Turn) -> bool:
        """Hold it no longer; return whether it was held."""
        if turn not in self._turns:
            return False
        self._turns.remove(turn)
        return True

    def first(self, num_turns: int, now_s: float) -> list[tuple[Turn, bool]]:
        """Return the first turns and whether they are due: those due, longest first, then others.

        O(turns returned * log turns held).
        """
        chosen: list[tuple[Turn, bool]] = []
        due = self._take(self._due, num_turns, now_s)
        chosen.extend((entry[2], True) for entry in due)
        for entry in due:
            heapq.heappush(self._due, entry)
        taken = {turn for turn, _ in chosen}
        others = self._take(self._by_weight, num_turns, float("inf"))
        for entry in others:
            heapq.heappush(self._by_weight, entry)
            if entry[2] not in taken and len(chosen) < num_turns:
                chosen.append((entry[2], False))
        return chosen

    def _take(
        self, heap: list[tuple[float, int, Turn]], num_turns: int, limit: float
    ) -> list[tuple[float, int, Turn]]:
        taken: list[tuple[float, int, Turn]] = []
        while len(taken) < num_turns:
            self._clean(heap)
            if not heap or heap[0][0] > limit:
                break
            taken.append(heapq.heappop(heap))
        return taken

    def _clean(self, heap: list[tuple[float, int, Turn]]) -> None:
        """Drop stale entries from the front."""
        while heap and heap[0][2] not in self._turns:
            heapq.heappop(heap)
