"""The kernel of the discrete-event driver: things in order of time, ties broken on purpose."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")


class EventQueue(Generic[Item]):
    """A heap of items keyed by (time, priority, order of insertion).

    Invariant: items leave at rising times; equal times leave by priority, then first in first out.
    """

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Item]] = []
        self._order = 0

    def push(self, at_s: float, priority: int, item: Item) -> None:
        """Schedule an item; the lower the priority number the earlier among equals."""
        heapq.heappush(self._heap, (at_s, priority, self._order, item))
        self._order += 1

    def peek(self) -> tuple[float, Item]:
        """Return the next item and its time; IndexError when empty."""
        at_s, _, _, item = self._heap[0]
        return at_s, item

    def pop(self) -> tuple[float, Item]:
        """Take the next item and its time; IndexError when empty."""
        at_s, _, _, item = heapq.heappop(self._heap)
        return at_s, item

    def bring_forward(self, priority: int, first_s: float) -> list[Item]:
        """Let the items of one priority come sooner, all by as much; return them. O(n).

        Args:
            priority: Of which there is one.
            first_s: When the earliest of them is due then.
        """
        others = [entry for entry in self._heap if entry[1] != priority]
        moved = [entry for entry in self._heap if entry[1] == priority]
        by_s = min(at_s for at_s, _, _, _ in moved) - first_s
        for at_s, _, order, item in moved:
            others.append((max(first_s, at_s - by_s), priority, order, item))  # rounding
        self._heap = others
        heapq.heapify(self._heap)
        return [item for _, _, _, item in moved]

    def __len__(self) -> int:
        return len(self._heap)
