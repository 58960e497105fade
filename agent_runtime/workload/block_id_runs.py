"""Arithmetic on runs of block ids: contexts of 2,000 blocks handled as a handful of intervals.

A sequence of runs is *canonical* when no two neighbours could be one run. Everything here keeps
canonical runs canonical.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

BlockIdRun = tuple[int, int]
"""``(first, last)``, both included: ids ``first, first + 1, ..., last`` at successive positions."""


def num_blocks(runs: Sequence[BlockIdRun]) -> int:
    """Return how many ids ``runs`` spell out."""
    return sum(last - first + 1 for first, last in runs)


def joined(runs: Iterable[BlockIdRun]) -> tuple[BlockIdRun, ...]:
    """Return the same ids as canonical runs."""
    result: list[BlockIdRun] = []
    for first, last in runs:
        if result and result[-1][1] + 1 == first:
            result[-1] = (result[-1][0], last)
        else:
            result.append((first, last))
    return tuple(result)


def runs_of(ids: Sequence[int]) -> tuple[BlockIdRun, ...]:
    """Return ids below 2**63 as canonical runs."""
    if not ids:
        return ()
    array = np.array(ids, dtype=np.int64)
    lasts = np.flatnonzero(np.diff(array) != 1)
    firsts = np.concatenate(([0], lasts + 1))
    lasts = np.append(lasts, len(array) - 1)
    return tuple(zip(array[firsts].tolist(), array[lasts].tolist(), strict=True))


def clipped(runs: Sequence[BlockIdRun], start: int, stop: int) -> tuple[BlockIdRun, ...]:
    """Return the runs of the ids at positions ``start <= position < stop``."""
    result, position = [], 0
    for first, last in runs:
        length = last - first + 1
        skipped, kept = max(0, start - position), min(length, stop - position)
        if skipped < kept:
            result.append((first + skipped, first + kept - 1))
        position += length
    return tuple(result)


def common_prefix(one: Sequence[BlockIdRun], other: Sequence[BlockIdRun]) -> int:
    """Return at how many leading positions two canonical sequences have the same id."""
    common = 0
    for (first, last), (other_first, other_last) in zip(one, other, strict=False):
        if first != other_first:
            break
        common += min(last, other_last) - first + 1
        if last != other_last:
            break
    return common


class IdMap:
    """Which intervals of local ids mean which global ids; the first claim to an id wins.

    Invariant: intervals are disjoint and sorted.
    """

    __slots__ = ("_intervals",)

    def __init__(self) -> None:
        self._intervals: list[tuple[int, int, int]] = []  # first, last, offset to the global id

    def claim(self, first: int, last: int, target: int) -> None:
        """Map ``first..last`` to ``target..``, leaving alone what is mapped already."""
        unclaimed = [
            (low, high, target - first)
            for low, high, offset in self._pieces(first, last)
            if offset is None
        ]
        self._intervals = sorted(self._intervals + unclaimed)

    def translate(
        self, runs: Iterable[Sequence[int]], default_offset: int
    ) -> tuple[BlockIdRun, ...]:
        """Return canonical global runs; ids nobody claimed are shifted by ``default_offset``."""
        return joined(
            (low + shift, high + shift)
            for first, last in runs
            for low, high, offset in self._pieces(first, last)
            for shift in (default_offset if offset is None else offset,)
        )

    def _pieces(self, first: int, last: int) -> Iterable[tuple[int, int, int | None]]:
        """Cut ``first..last`` at the borders of the intervals; offset None where unclaimed."""
        position = first
        for low, high, offset in self._intervals:
            if high < position:
                continue
            if low > last:
                break
            if low > position:
                yield position, low - 1, None
                position = low
            yield position, min(high, last), offset
            position = high + 1
        if position <= last:
            yield position, last, None
