"""Which of an engine's KV events comes next, and whether it is the engine that it was. Sans-IO."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

MAX_UNCONFIRMED = 1_000
"""Batches whose times are remembered until the engine has repeated them."""


class Arrival(Enum):
    """What a batch is, by its number and time."""

    NEXT = auto()
    OLD = auto()
    """Known already."""
    AFTER_A_GAP = auto()
    RESTARTED = auto()
    """Of an engine that counts anew: it is later than all, or its number was another one's."""


class EventOrder:
    """Which batch comes next.

    An engine that is started again may come to the number that was expected before anything tells
    of its start: its first batches got lost, or are late. So times count, too.

    Invariants: all batches below ``expected`` are known, or given up for lost; ``_unconfirmed`` has
        numbers and times of the latest that are known, in order, the last one at least.
    """

    __slots__ = ("_last_ts", "_unconfirmed", "expected")

    def __init__(self) -> None:
        self.expected: int | None = None
        self._last_ts = float("-inf")
        self._unconfirmed: deque[tuple[int, float]] = deque(maxlen=MAX_UNCONFIRMED)

    @property
    def unconfirmed(self) -> dict[int, float]:
        """Times of batches that the engine has not repeated yet, and of the last one, by number."""
        return dict(self._unconfirmed)

    def arrival(self, sequence: int, ts: float) -> Arrival:
        """Return what a batch is."""
        if self.expected is None or sequence == self.expected:
            return Arrival.NEXT
        if sequence > self.expected:
            return Arrival.AFTER_A_GAP
        is_another = any(number == sequence and at != ts for number, at in self._unconfirmed)
        return Arrival.RESTARTED if ts > self._last_ts or is_another else Arrival.OLD

    def took(self, sequence: int, ts: float) -> None:
        """Note that a batch is known now."""
        self.expected = sequence + 1
        self._last_ts = max(self._last_ts, ts)
        self._unconfirmed.append((sequence, ts))

    def confirmed(self) -> None:
        """Note that the engine is the one that all known batches are of."""
        while len(self._unconfirmed) > 1:
            self._unconfirmed.popleft()

    def restart(self) -> None:
        """Expect the first batch of all."""
        self.expected = 0
        self._unconfirmed.clear()
