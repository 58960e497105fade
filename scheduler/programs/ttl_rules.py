"""Continuum's two rules for how long KV is kept: the paper's, and that of the public code."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

from scheduler.cost import CostModel
from scheduler.events import GapCause
from scheduler.programs.running_mean import RunningMean
from scheduler.programs.tool_gaps import GapHistory
from scheduler.session import Session

MIN_SAMPLES = 100
WINDOW = 1000
FIRST_GUESS_S = 1.0
"""Mean tool call before any was seen: of SWE-bench and BFCL in the paper, 0.9 and 1.9 s."""


def best_ttl_s(ascending_s: Sequence[float], benefit_s: float) -> float:
    """Return ``argmax P(tau) * benefit - tau`` over the gaps seen, and 0.

    Args:
        ascending_s: Gaps, shortest first; ``P`` is their empirical distribution.
        benefit_s: What is saved if the session comes back in time.
    """
    best_s, best_value = 0.0, 0.0
    num = len(ascending_s)
    for rank, gap_s in enumerate(ascending_s, start=1):
        if gap_s >= benefit_s:
            break
        value = rank / num * benefit_s - gap_s
        if value > best_value:
            best_s, best_value = gap_s, value
    return best_s


def exponential_ttl_s(mean_s: float, benefit_s: float) -> float:
    """Return the same for exponential gaps: ``mean * ln(benefit / mean)``, or 0.

    The derivative of ``(1 - exp(-tau / mean)) * benefit - tau`` is 0 there.
    """
    return mean_s * log(benefit_s / mean_s) if benefit_s > mean_s > 0 else 0.0


class Memoryfulness:
    """``eta = -Corr(turns done, turns left)`` over every turn of the programs that are over.

    1 if all programs are equally long, 0 if how long they go on does not depend on their age.
    """

    __slots__ = ("_num", "_xs", "_xx", "_xy", "_ys", "_yy")

    def __init__(self) -> None:
        self._num = self._xs = self._ys = self._xx = self._yy = self._xy = 0

    def add(self, turns: int) -> None:
        """Take in a program: done 1, 2 ... turns, left ``turns - 1``, ... 0."""
        squares = turns * (turns + 1) * (2 * turns + 1) // 6
        done = turns * (turns + 1) // 2
        self._num += turns
        self._xs += done
        self._ys += done - turns
        self._xx += squares
        self._yy += squares - turns * turns
        self._xy += turns * done - squares

    @property
    def eta(self) -> float:
        """At least 0; 1 before there is anything to tell from."""
        var_x = self._num * self._xx - self._xs**2
        var_y = self._num * self._yy - self._ys**2
        if var_x <= 0 or var_y <= 0:
            return 1.0
        return max(0.0, -(self._num * self._xy - self._xs * self._ys) / sqrt(var_x * var_y))


class PaperTtl:
    """``tau* = argmax P(tau, f) * (T * eta + PrefillReload) - tau``.

    ``P`` is the distribution of tool ``f``'s gaps; of all, while there are too few; exponential,
    while there are too few of those. ``T`` is the mean wait, at first 0. ``PrefillReload`` is the
    prefill of the context, or its way from host memory if that has a copy and is faster.

    Source: Continuum, arXiv 2511.02230.
    """

    def __init__(self, cost: CostModel, *, has_host_memory: bool) -> None:
        self._cost = cost
        self._has_host_memory = has_host_memory
        self._gaps = GapHistory(WINDOW)
        self._mean_gap = RunningMean(FIRST_GUESS_S)
        self._mean_wait = RunningMean()
        self._memoryfulness = Memoryfulness()

    def saw_gap(self, name: str, gap_s: float) -> None:
        """Add it to its class and to all."""
        self._gaps.add(name, gap_s)
        self._mean_gap.add(gap_s)

    def saw_wait(self, wait_s: float) -> None:
        """Add it to ``T``."""
        self._mean_wait.add(wait_s)

    def saw_end(self, num_turns: int) -> None:
        """Add its turns to ``eta``."""
        self._memoryfulness.add(num_turns)

    def ttl_s(self, session: Session, name: str) -> float:
        """Return ``tau*``."""
        tokens = session.context_tokens
        if tokens == 0:
            return 0.0
        reload_s = self._cost.prefill_s(0, tokens)
        if self._has_host_memory:
            reload_s = min(reload_s, self._cost.transfer.load_s(tokens))
        benefit_s = self._mean_wait.mean * self._memoryfulness.eta + reload_s
        for seen in (self._gaps.ascending(name), self._gaps.all.ascending):
            if len(seen) > MIN_SAMPLES:
                return best_ttl_s(seen, benefit_s)
        return exponential_ttl_s(self._mean_gap.mean, benefit_s)


PUBLIC_TTL_S = 2.0


class PublicTtl:
    """Two seconds, unless the tool takes longer than that on average.

    A tool that was never seen counts as fast; without a tool call nothing is kept.

    Source: ``FIXED_THRESHOLD_CONTINUUM`` in vllm-continuum, ``estimate_with_func.py``.
    """

    def __init__(self) -> None:
        self._means: dict[str, RunningMean] = {}

    def saw_gap(self, name: str, gap_s: float) -> None:
        """Add it to its tool's mean."""
        self._means.setdefault(name, RunningMean()).add(gap_s)

    def saw_wait(self, wait_s: float) -> None:
        """Nothing."""

    def saw_end(self, num_turns: int) -> None:
        """Nothing."""

    def ttl_s(self, session: Session, name: str) -> float:
        """Return 2 s or nothing."""
        if session.gap.cause is GapCause.HUMAN:
            return 0.0
        seen = self._means.get(name)
        return 0.0 if seen is not None and seen.mean > PUBLIC_TTL_S else PUBLIC_TTL_S
