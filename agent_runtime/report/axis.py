"""One axis of a chart: its range, where its ticks stand and what they say."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.report import quantities

FloatArray = NDArray[np.float64]

_SHORTEST_S, _LONGEST = 1e-9, 1e15
"""Beyond these a log axis, or any axis, pins values to its end: nothing we time lies there."""

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3_600.0, 86_400.0
_CLOCK_STEPS_S = tuple(
    unit_s * many
    for unit_s, counts in (
        (1.0, (1, 2, 5, 10, 15, 30)),
        (_MINUTE_S, (1, 2, 5, 10, 15, 30)),
        (_HOUR_S, (1, 2, 3, 6, 12, 24)),
    )
    for many in counts
)


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to a share of the axis' length.

    Attributes:
        low, high: The values at its two ends, low < high; both > 0 when ``log``.
        ticks: Values with a tick, rising, within the ends.
        log: Whether equal ratios, not equal differences, are equally far apart.
        render: What a tick or a value reads.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool
    render: Callable[[float], str]

    def fraction(self, values: FloatArray) -> FloatArray:
        """Return where ``values`` lie, 0 at ``low`` and 1 at ``high``; those outside are pinned."""
        pinned = np.clip(values, self.low, self.high)
        if self.log:
            return np.log(pinned / self.low) / math.log(self.high / self.low)
        return (pinned - self.low) / (self.high - self.low)

    def value_at(self, fraction: float) -> float:
        """Return the value ``fraction`` of the way along; the inverse of :meth:`fraction`."""
        if self.log:
            return self.low * math.exp(fraction * math.log(self.high / self.low))
        return self.low + fraction * (self.high - self.low)


def ratio_axis() -> Axis:
    """Return 0 to 100 %, always whole: a share is only honest beside what it is a share of."""
    return Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), log=False, render=_percent)


def count_axis(values: FloatArray, max_ticks: int) -> Axis:
    """Return an axis from zero over counts, its end rounded up to a tick and at least one."""
    highest = max(1.0, _highest(values))
    step = max(1.0, _one_two_five(highest / max(1, max_ticks - 1)))
    num_steps = math.ceil(highest / step - 1e-9)
    ticks = tuple(step * i for i in range(num_steps + 1))
    return Axis(0.0, ticks[-1], ticks, log=False, render=quantities.count)


def time_axis(values_s: FloatArray, max_ticks: int) -> Axis:
    """Return an axis from zero to the last of ``values_s``, ticked in whole s, min, h or days."""
    longest_s = max(_SHORTEST_S, _highest(values_s) or 1.0)
    step_s = _clock_step(longest_s / max_ticks)
    ticks = tuple(step_s * i for i in range(math.floor(longest_s / step_s + 1e-9) + 1))
    return Axis(0.0, longest_s, ticks, log=False, render=quantities.short_seconds)


def log_time_axis(values_s: FloatArray, max_ticks: int) -> Axis:
    """Return a log axis that just holds ``values_s``, with the finest ticks that fit.

    Zero and negative values have no place on it and are pinned to its low end.
    """
    return _log_axis(values_s, _LOG_GRIDS_S, max_ticks, quantities.short_seconds)


def log_factor_axis(values: FloatArray, max_ticks: int) -> Axis:
    """Return the same over how many times as much something is."""
    return _log_axis(values, _LOG_GRIDS, max_ticks, lambda value: f"{value:,.6g}x")


def marked_axis(marks: Sequence[float]) -> Axis:
    """Return an axis that reaches a little beyond its few ticks; ``marks`` rise."""
    room = 0.06 * (marks[-1] - marks[0]) or 0.1 * abs(marks[0]) or 1.0
    ends = marks[0] - room, marks[-1] + room
    return Axis(*ends, tuple(marks), log=False, render=lambda value: f"{value:g}")


def _log_axis(
    values: FloatArray,
    grids: Sequence[Sequence[float]],
    max_ticks: int,
    render: Callable[[float], str],
) -> Axis:
    """Return a log axis that just holds ``values``; ``grids`` are candidate ticks, finest first."""
    usable = values[np.isfinite(values) & (values > 0)]
    if usable.size == 0:
        usable = np.array([1.0])
    lowest, highest = np.clip([usable.min(), usable.max()], _SHORTEST_S, _LONGEST).tolist()
    finest = grids[0]
    first = max(0, bisect_right(finest, lowest * (1 + 1e-9)) - 1)
    last = min(len(finest) - 1, bisect_left(finest, highest * (1 - 1e-9)))
    if first >= last:  # All values are one tick: give it some room.
        first, last = max(0, first - 1), min(len(finest) - 1, last + 1)
    low, high = finest[first], finest[last]
    fitting = [[tick for tick in grid if low <= tick <= high] for grid in grids]
    ticks = next((some for some in fitting if len(some) <= max_ticks), fitting[-1])
    shown = tuple(ticks[:: -(-len(ticks) // max_ticks)])
    return Axis(low, high, shown, log=True, render=render)


def _log_grid(per_decade: Sequence[float], per_clock_unit: Sequence[float]) -> tuple[float, ...]:
    """Return candidate ticks in seconds, rising: decimal below a minute, then by the clock."""
    decimal = (many * 10.0**k for k in range(-9, 2) for many in per_decade)
    clock = (
        unit_s * many
        for unit_s, end in ((_MINUTE_S, 60), (_HOUR_S, 24))
        for many in per_clock_unit
        if many < end
    )
    days = (_DAY_S * many * 10.0**k for k in range(11) for many in per_decade)
    below_a_minute = (value for value in decimal if value < _MINUTE_S)
    return tuple(itertools.chain(below_a_minute, clock, days))


_LOG_GRIDS_S = (
    _log_grid((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40)),
    _log_grid((1, 2, 5), (1, 2, 5, 10, 20)),
    _log_grid((1, 3), (1, 3, 10, 30)),
    _log_grid((1,), (1, 10)),
)
"""Densest first."""

_LOG_GRIDS = tuple(
    tuple(many * 10.0**k for k in range(-9, 15) for many in per_decade)
    for per_decade in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,))
)
"""The same without a clock."""


def _highest(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.clip(finite.max(), 0.0, _LONGEST)) if finite.size else 0.0


def _one_two_five(at_least: float) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that is >= ``at_least`` (> 0)."""
    decade = 10.0 ** math.floor(math.log10(max(at_least, 1e-12)))
    return next(decade * many for many in (1, 2, 5, 10) if decade * many >= at_least * (1 - 1e-9))


def _clock_step(at_least_s: float) -> float:
    if at_least_s <= 1:
        return _one_two_five(at_least_s)
    if at_least_s > _DAY_S:
        return _DAY_S * _one_two_five(at_least_s / _DAY_S)
    return next(step_s for step_s in _CLOCK_STEPS_S if step_s >= at_least_s)


def _percent(value: float) -> str:
    return f"{value * 100:.0f} %"
