"""The turns that wait for a place, the least work first."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TypeAlias

from scheduler.session import Turn

Entry: TypeAlias = tuple[float, int, Turn]
"""By what it is ordered, in which order it came, and the turn."""


class HeldTurns:
    """Turns by what they cost, and by when their patience runs out.

    Sorted lists: thousands of entries move in less time than a heap's first few take to be popped
    and pushed, and the first few are what is asked for at every event.

    Invariant: a held turn has one entry in each list, which ``_entries`` knows.
    """

    __slots__ = ("_by_due", "_by_weight", "_entries", "_num_added")

    def __init__(self) -> None:
        self._by_weight: list[Entry] = []
        self._by_due: list[Entry] = []
        self._entries: dict[Turn, tuple[Entry, Entry]] = {}
        self._num_added = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, turn: Turn) -> bool:
        return turn in self._entries

    def add(self, turn: Turn, weight: float, due_s: float) -> None:
        """Hold a turn.

        Args:
            turn: Not held yet.
            weight: Smaller goes first.
            due_s: When it goes before all that are not due.
        """
        self._num_added += 1
        by_weight, by_due = (weight, self._num_added, turn), (due_s, self._num_added, turn)
        self._entries[turn] = by_weight, by_due
        insort(self._by_weight, by_weight)
        insort(self._by_due, by_due)

    def remove(self, turn: Turn) -> bool:
        """Hold it no longer; return whether it was held."""
        entries = self._entries.pop(turn, None)
        if entries is None:
            return False
        by_weight, by_due = entries
        del self._by_weight[bisect_left(self._by_weight, by_weight)]
        del self._by_due[bisect_left(self._by_due, by_due)]
        return True

    def first(self, num_turns: int, now_s: float) -> list[tuple[Turn, bool]]:
        """Return the first turns and whether they are due: those due, longest first, then others.

        O(turns returned).
        """
        chosen = [(entry[2], True) for entry in self._by_due[:num_turns] if entry[0] <= now_s]
        due = {turn for turn, _ in chosen}
        for _, _, turn in self._by_weight[:num_turns]:
            if turn not in due and len(chosen) < num_turns:
                chosen.append((turn, False))
        return chosen
