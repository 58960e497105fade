"""SAGA's formulas: which KV to evict, how long to keep it, how loaded a worker is.

Source: SAGA, arXiv 2605.00528 (HPDC'26), and its repository: ``cache/policies.py``,
``cache/ttl.py``, ``core/aeg.py``, ``scheduler/routing.py``.
"""

from __future__ import annotations

from math import log, sqrt

from scheduler.programs.log_normal import LogNormal

RECENCY_WEIGHT, REUSE_WEIGHT, SIZE_WEIGHT = 0.3, 0.5, 0.2
TTL_PERCENTILE = 0.95
MAX_TTL_S = 300.0
LOW_PRESSURE, HIGH_PRESSURE = 0.7, 0.9
PRESSURE_SCALE = 0.5
LATENCY_ALPHA = 0.1
END_PROBABILITY = 0.05
"""That an agent's turn is its last, before any ended."""


def reuse_probability(
    context_tokens: int, observation_tokens: float, end_probability: float
) -> float:
    """Return ``P(v -> u) * n / (n + E[obs])`` of a chain of turns, ReAct's graph.

    Args:
        context_tokens: ``n``, cached.
        observation_tokens: What a tool adds, on average.
        end_probability: That no turn follows.
    """
    if context_tokens <= 0:
        return 0.0
    overlap = context_tokens / (context_tokens + max(1.0, observation_tokens))
    return (1 - end_probability) * overlap


def eviction_priority(idle: float, reuse: float, size: float) -> float:
    """Return ``P_evict = 0.3 R + 0.5 (1 - P_reuse) + 0.2 S``; the largest is evicted first.

    Args:
        idle: ``R``, idle time over the longest there is.
        reuse: ``P_reuse``.
        size: ``S``, tokens over the most there are.
    """
    return RECENCY_WEIGHT * idle + REUSE_WEIGHT * (1 - reuse) + SIZE_WEIGHT * size


def ttl_s(law: LogNormal | None, used_share: float) -> float:
    """Return ``min(P95 * (1 - 0.5 m), 300 s)``, ``m`` the pressure from 70 to 90 % of memory."""
    if law is None:
        return MAX_TTL_S
    pressure = (used_share - LOW_PRESSURE) / (HIGH_PRESSURE - LOW_PRESSURE)
    scale = 1 - PRESSURE_SCALE * min(max(pressure, 0.0), 1.0)
    return min(law.quantile(TTL_PERCENTILE) * scale, MAX_TTL_S)


class ToolLatency:
    """A tool's latency: mean and variance of its logarithm, averaged exponentially."""

    __slots__ = ("_mean", "_num", "_variance")

    def __init__(self) -> None:
        self._num = 0
        self._mean = 0.0
        self._variance = 1.0

    def add(self, latency_s: float) -> None:
        """Take in a call."""
        if latency_s <= 0:
            return
        value = log(max(latency_s, 1e-3))
        if self._num == 0:
            self._mean = value
        else:
            self._mean += LATENCY_ALPHA * (value - self._mean)
            self._variance += LATENCY_ALPHA * ((value - self._mean) ** 2 - self._variance)
        self._num += 1

    @property
    def law(self) -> LogNormal | None:
        """None before the first call."""
        return LogNormal(self._mean, sqrt(max(self._variance, 1e-6))) if self._num else None
