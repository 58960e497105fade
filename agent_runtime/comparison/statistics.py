"""From cells to what can be said of a policy: means over seeds, with intervals."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agent_runtime.comparison.cell import CellResult
from scheduler.policies import POLICIES

# Student's t, 97.5 %, by degrees of freedom; NIST/SEMATECH e-Handbook, table 1.3.6.7.2.
_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_T_975_FROM = ((31, 2.042), (40, 2.021), (60, 2.000), (100, 1.984))
"""Beyond it: from so many degrees on. The next lower entry, so that no interval is too narrow."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its 95 % interval; None for the interval of a single one."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate | None:
        """Return the mean of values, with Student's interval; None of none.

        Source: ``mean +- t(97.5 %, n - 1) s / sqrt(n)``, NIST/SEMATECH e-Handbook 1.3.5.2.
        """
        if not values:
            return None
        array = np.asarray(values, dtype=np.float64)
        mean = float(array.mean())
        if array.size == 1:
            return cls(mean, None, None)
        half = t_975(array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a policy stands against the best of its rivals at one load.

    Attributes:
        measure: A field of ``CellResult``.
        rival: The policy with the least mean of it.
        ratio: The policy's over the rival's; see ``paired_ratio``.
    """

    load: float
    policy: str
    measure: str
    rival: str
    ratio: Estimate


def t_975(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, >= 1 degrees of freedom; never too small."""
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    return _T_975_FROM[bisect_right(_T_975_FROM, (degrees, math.inf)) - 1][1]


def estimate(
    results: Iterable[CellResult], policy: str, load: float, measure: str
) -> Estimate | None:
    """Return a policy's measure at a load, over the seeds that have it; None if none has."""
    return Estimate.of(list(_by_seed(results, policy, load, measure).values()))


def paired_ratio(
    results: Sequence[CellResult], policy: str, other: str, load: float, measure: str
) -> Estimate | None:
    """Return a policy's measure over another's: the geometric mean of the ratios of equal seeds.

    Equal seeds have the same sessions at the same times, so what is luck of these cancels. The
    interval is Student's over logarithms, so that A over B is one by B over A.

    Source: Fleming and Wallace 1986, "How not to lie with statistics": normalised numbers have a
    geometric mean.

    Returns:
        None where no seed has both, or one of them is not above zero.
    """
    own = _by_seed(results, policy, load, measure)
    others = _by_seed(results, other, load, measure)
    seeds = own.keys() & others.keys()
    if any(own[seed] <= 0 or others[seed] <= 0 for seed in seeds):
        return None
    found = Estimate.of([math.log(own[seed] / others[seed]) for seed in sorted(seeds)])
    if found is None or found.low is None or found.high is None:
        return None if found is None else Estimate(math.exp(found.mean), None, None)
    return Estimate(math.exp(found.mean), math.exp(found.low), math.exp(found.high))


def verdict(
    results: Sequence[CellResult], policy: str, load: float, measure: str
) -> Verdict | None:
    """Return how a policy stands; None without it, or without a rival.

    Bounds, which know the future, are nobody's rivals.
    """
    names = sorted({r.policy for r in results if r.load == load} - {policy})
    means = [
        (found.mean, name)
        for name in names
        if not POLICIES[name].needs_future
        and (found := estimate(results, name, load, measure)) is not None
    ]
    if not means:
        return None
    _, rival = min(means)
    ratio = paired_ratio(results, policy, rival, load, measure)
    return None if ratio is None else Verdict(load, policy, measure, rival, ratio)


def _by_seed(
    results: Iterable[CellResult], policy: str, load: float, measure: str
) -> dict[int, float]:
    return {
        result.seed: float(value)
        for result in results
        if result.policy == policy
        and result.load == load
        and (value := getattr(result, measure)) is not None
    }
