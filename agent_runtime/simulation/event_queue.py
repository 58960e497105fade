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

    @property
    def next_s(self) -> float:
        """When the next item is due; IndexError when empty."""
        return self._heap[0][0]

    def pop(self) -> tuple[float, Item]:
        """Take the next item and its time; IndexError when empty."""
        at_s, _, _, item = heapq.heappop(self._heap)
        return at_s, item

    def bring_forward(self, by_s: float) -> None:
        """Let everything that is scheduled come sooner by as much."""
        self._heap = [
            (at_s - by_s, priority, order, item) for at_s, priority, order, item in self._heap
        ]

    def __len__(self) -> int:
        return len(self._heap)
