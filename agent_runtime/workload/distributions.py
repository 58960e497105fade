"""The distributions that generators draw from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A log-normal distribution.

    Attributes:
        median: Of what is drawn.
        sigma: Of its logarithm.
    """

    median: float
    sigma: float

    @classmethod
    def of_mean(cls, median: float, mean: float) -> Self:
        """Return the one with this median and this mean, which is larger."""
        return cls(median, float(np.sqrt(2 * np.log(mean / median))))

    def whole(self, rng: np.random.Generator, least: int, most: int) -> int:
        """Draw a whole number, brought within the bounds."""
        return min(max(round(self._value(rng)), least), most)

    def seconds(self, rng: np.random.Generator, most_s: float) -> float:
        """Draw a time, at most ``most_s``."""
        return min(self._value(rng), most_s)

    def _value(self, rng: np.random.Generator) -> float:
        return float(rng.lognormal(np.log(self.median), self.sigma))


@dataclass(frozen=True, slots=True)
class ToolGaps:
    """Tool gaps by classes, log-uniform inside each.

    Attributes:
        shares: Of the classes; TraceLab (arXiv 2606.30560): 61 % under 1 s, 27 % to 10 s, 8 % to
            1 min, 4 % longer.
        bounds_s: Of the classes, one more; the outer ones are assumed.
    """

    shares: tuple[float, ...] = (0.61, 0.27, 0.08, 0.04)
    bounds_s: tuple[float, ...] = (0.05, 1, 10, 60, 600)

    def __post_init__(self) -> None:
        if len(self.bounds_s) != len(self.shares) + 1:
            raise ValueError("bounds_s has one entry more than shares")

    def seconds(self, rng: np.random.Generator, most_s: float) -> float:
        """Draw a gap, at most ``most_s``."""
        kind = int(rng.choice(len(self.shares), p=self.shares))
        low, high = np.log(self.bounds_s[kind]), np.log(self.bounds_s[kind + 1])
        return min(float(np.exp(rng.uniform(low, high))), most_s)


def zipf_shares(num: int, exponent: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the popularity of ``num`` things by rank, summing to 1."""
    weights = 1 / np.arange(1, num + 1, dtype=np.float64) ** exponent
    return np.asarray(weights / weights.sum())
