"""From cells to what can be said of a policy: means over seeds, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agent_runtime.comparison.cell import CellResult
from scheduler.policies import POLICIES

# Student's t, 97.5 %, by degrees of freedom; NIST/SEMATECH e-Handbook, table 1.3.6.7.2.
_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
_T_975_LARGE = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its 95 % interval; None for the interval of a single one."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the mean of one value or more."""
        array = np.asarray(values, dtype=np.float64)
        mean = float(array.mean())
        if array.size == 1:
            return cls(mean, None, None)
        t = _T_975[array.size - 2] if array.size - 2 < len(_T_975) else _T_975_LARGE
        half = t * float(array.std(ddof=1)) / math.sqrt(array.size)
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a policy stands against the best of its rivals at one load.

    Attributes:
        measure: A field of ``CellResult``.
        rival: The policy with the least mean of it.
        ratio: The policy's over the rival's, seed by seed.
    """

    load: float
    measure: str
    rival: str
    ratio: Estimate


def estimate(results: Iterable[CellResult], policy: str, load: float, measure: str) -> Estimate:
    """Return a policy's measure at a load, over the seeds there are."""
    return Estimate.of(
        [
            float(getattr(result, measure))
            for result in results
            if result.policy == policy and result.load == load
        ]
    )


def verdict(
    results: Sequence[CellResult], policy: str, load: float, measure: str
) -> Verdict | None:
    """Return how a policy stands; None without it, or without a rival.

    Bounds, which know the future, are nobody's rivals.
    """
    here = [result for result in results if result.load == load]
    names = {result.policy for result in here}
    rivals = {name for name in names if name != policy and not POLICIES[name].needs_future}
    if policy not in names or not rivals:
        return None
    best = min(rivals, key=lambda name: (estimate(here, name, load, measure).mean, name))
    own = {r.seed: float(getattr(r, measure)) for r in here if r.policy == policy}
    other = {r.seed: float(getattr(r, measure)) for r in here if r.policy == best}
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return None
    ratios = [own[seed] / other[seed] for seed in seeds if other[seed]]
    return Verdict(load, measure, best, Estimate.of(ratios)) if ratios else None
