"""A log-normal law, fitted to what was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import erf, exp, log, sqrt
from statistics import NormalDist, fmean
from typing import Self


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Of a positive quantity whose logarithm is normal.

    Attributes:
        mu: Mean of the logarithm.
        sigma: Its standard deviation, > 0.
    """

    mu: float
    sigma: float

    @classmethod
    def fit(cls, values: Iterable[float]) -> Self | None:
        """Return the law of greatest likelihood; None if no value is positive."""
        logs = [log(value) for value in values if value > 0]
        if not logs:
            return None
        mu = fmean(logs)
        sigma = sqrt(fmean((one - mu) ** 2 for one in logs))
        return cls(mu, max(sigma, 1e-6))

    def cdf(self, value: float) -> float:
        """Return ``P(X < value)``."""
        return _standard_cdf((log(value) - self.mu) / self.sigma) if value > 0 else 0.0

    def mean_below(self, value: float) -> float:
        """Return ``E[X; X < value]``."""
        if value <= 0:
            return 0.0
        mean = exp(self.mu + self.sigma**2 / 2)
        return mean * _standard_cdf((log(value) - self.mu - self.sigma**2) / self.sigma)

    def quantile(self, share: float) -> float:
        """Return the value that a share in (0, 1) is below."""
        return exp(self.mu + self.sigma * NormalDist().inv_cdf(share))


def _standard_cdf(value: float) -> float:
    return (1 + erf(value / sqrt(2))) / 2
