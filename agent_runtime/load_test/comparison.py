"""Two load tests beside each other: ratios with intervals.

Turns of a session are alike, so sessions are drawn and not turns: the interval is that of a
bootstrap over sessions (Davison and Hinkley 1997, section 3.8, "Hierarchical data").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.load_test.summary import LoadSummary, TurnColumns

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], float]

NUM_DRAWS = 1000
LOW, HIGH = 2.5, 97.5
LEAST_SESSIONS = 2
DIFFERING = ("workload", "arrival", "sessions", "duration_s", "gap_scale", "reply_length", "seed")
"""Inputs that make runs hard to compare where they are not the same."""


@dataclass(frozen=True, slots=True)
class RunRatio:
    """One measure of two runs.

    Attributes:
        name: e.g. ``TTFT p99``.
        is_time: Whether it is in seconds, and less is better; else a rate, and more is.
        a, b: Of either run, or None.
        ratio: B over A; None where one has none, or A's is 0.
        low, high: Its 95 % interval, or None.
    """

    name: str
    is_time: bool
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None = None
    high: float | None = None


def compare(a: LoadSummary, b: LoadSummary, seed: int = 0) -> list[RunRatio]:
    """Return what differs between two runs, B over A.

    Args:
        a: One run.
        b: The other.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    ratios = [
        _drawn(f"{title} {name}", field, statistic, (a, b), random)
        for title, field in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("E2E", "e2e_s"))
        for name, statistic in STATISTICS
    ]
    for name, read, is_time in _WHOLE:
        ratios.append(_ratio(name, read(a), read(b), is_time=is_time))
    return ratios


def differences(a: LoadSummary, b: LoadSummary) -> list[str]:
    """Return what was asked of one run and not of the other."""
    return [
        f"{name}: {getattr(a.inputs, name)} and {getattr(b.inputs, name)}"
        for name in DIFFERING
        if getattr(a.inputs, name) != getattr(b.inputs, name)
    ]


def _quantile(share: float) -> Statistic:
    return lambda values: float(np.quantile(values, share))


STATISTICS: tuple[tuple[str, Statistic], ...] = (
    ("mean", lambda values: float(values.mean())),
    ("p50", _quantile(0.5)),
    ("p99", _quantile(0.99)),
)

_WHOLE: tuple[tuple[str, Callable[[LoadSummary], float | None], bool], ...] = (
    ("JCT mean", lambda s: s.jct_s.mean, True),
    ("output tokens/s", lambda s: s.throughput.output_tokens_per_s, False),
    ("turns/s", lambda s: s.throughput.turns_per_s, False),
    ("good turns/s", lambda s: s.goodput.turns_per_s, False),
    ("cached share", lambda s: s.tokens.cached_ratio, False),
)


def _ratio(name: str, a: float | None, b: float | None, *, is_time: bool) -> RunRatio:
    ratio = None if a is None or b is None or a <= 0 else b / a
    return RunRatio(name, is_time, a, b, ratio)


def _drawn(
    name: str,
    field: str,
    statistic: Statistic,
    runs: tuple[LoadSummary, LoadSummary],
    random: np.random.Generator,
) -> RunRatio:
    """Return a ratio with the interval of its draws."""
    groups = [_by_session(run.columns, field) for run in runs]
    a, b = (statistic(np.concatenate(some)) if some else None for some in groups)
    found = _ratio(name, a, b, is_time=True)
    if found.ratio is None or min(len(some) for some in groups) < LEAST_SESSIONS:
        return found
    draws = [[_of_draw(some, statistic, random) for _ in range(NUM_DRAWS)] for some in groups]
    logs = [math.log(other / one) for one, other in zip(*draws, strict=True) if one > 0 < other]
    if not logs:
        return found
    low, high = np.exp(np.percentile(logs, (LOW, HIGH))).tolist()
    return RunRatio(name, is_time=True, a=a, b=b, ratio=found.ratio, low=low, high=high)


def _of_draw(groups: list[FloatArray], statistic: Statistic, random: np.random.Generator) -> float:
    chosen = random.integers(0, len(groups), len(groups)).tolist()
    return statistic(np.concatenate([groups[index] for index in chosen]))


def _by_session(columns: TurnColumns, field: str) -> list[FloatArray]:
    """Return a field's values, an array a session; sub-agents count with the one they serve."""
    found: dict[str, list[float]] = {}
    for session, value in zip(columns.session, getattr(columns, field), strict=True):
        if value is not None:
            found.setdefault(session.partition("/")[0], []).append(value)
    return [np.array(values) for values in found.values()]
