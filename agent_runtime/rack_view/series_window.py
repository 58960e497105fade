"""Values that came lately, and percentiles of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil, inf

from agent_runtime.rack_view.messages import SeriesPoint

MAX_SAMPLES = 8192
"""The newest that are kept; a window that has more is of these alone."""


class SeriesWindow:
    """Values as they come, to be had by how new they are. O(1) a value.

    Invariant: versions and times rise.
    """

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float, float]] = deque(maxlen=MAX_SAMPLES)

    def add(self, version: int, now_s: float, value_s: float) -> None:
        """Take in a value, of a version of the picture."""
        self._samples.append((version, now_s, value_s))

    def since(self, version: int, after_s: float = inf) -> list[float]:
        """Return what came after a version, or after a time; the newest first. O(values)."""
        values = []
        for at, at_s, value_s in reversed(self._samples):
            if at <= version and at_s <= after_s:
                break
            values.append(value_s)
        return values


def series_point(values: Sequence[float]) -> SeriesPoint | None:
    """Return the percentiles of values in any order, None of nothing.

    They are values that occurred: the smallest that at least half, or 99 in 100, are no more than.
    """
    if not values:
        return None
    ranked = sorted(values)
    return SeriesPoint(_at(ranked, 0.5), _at(ranked, 0.99), len(ranked))


def _at(ranked: Sequence[float], share: float) -> float:
    return round(ranked[ceil(share * len(ranked)) - 1], 6)
