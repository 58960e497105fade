"""When a session comes back: survival curves of tool gaps, by what the session waits for.

Every class of gaps (a tool's name, tools in general, a human, ...) has a histogram over
logarithmic bins. Few samples say little, so a class borrows from its parent: the parent's curve
counts as ``PRIOR_WEIGHT`` samples of its own. All replicas' gaps are one population, so nothing
starts cold a hundred times. At the root stands what was published before the first sample came.

The return rate of a gap that has lasted ``e`` seconds is the best that can be had per second of
keeping its KV: ``max over d of P(back by e + d) / E[seconds kept until then]``, an index as
Gittins'. Where gaps are exponential it is their rate, however long they last.
"""

from __future__ import annotations

import math

import numpy as np

from scheduler.events import GapCause, GapHint

PRIOR_WEIGHT = 8.0
"""Samples that a parent's curve is worth."""

FIRST_EDGE_S, EDGES_PER_OCTAVE, NUM_BINS = 0.25, 2, 40
"""Bins end at 0.25 s * 2**(n/2): up to three days."""

OVERRUN = 4.0
"""A hint that was overrun this many times tells nothing more."""

MOST_TOOLS = 4096
"""Names come from clients, who may make them up; further ones are tools in general."""

# Quantiles of published gaps: TraceLab (43 developers): tools p50 0.3 s, p90 13.6 s, 96 % under a
# minute; humans p50 86 s, p90 21 min.
_TOOL_PRIOR = (math.log(0.3), math.log(13.6 / 0.3) / 1.2816)
_HUMAN_PRIOR = (math.log(86.0), math.log(1260 / 86.0) / 1.2816)


class _Curve:
    """One class's histogram and the return rates that follow."""

    __slots__ = ("_counts", "_fresh_until", "_left_s", "_parent", "_rates", "num_samples")

    def __init__(self, parent: _Curve | None, prior: np.ndarray | None = None) -> None:
        self._parent = parent
        self._counts = np.zeros(NUM_BINS)
        if prior is not None:
            self._counts += prior
        self.num_samples = 0
        self._fresh_until = -1
        self._rates: list[float] = []
        self._left_s: list[float] = []

    def observe(self, bin_index: int) -> None:
        """Count a gap."""
        self._counts[bin_index] += 1
        self.num_samples += 1

    def shares(self) -> np.ndarray:
        """Return the probability of every bin."""
        counts = self._counts
        if self._parent is not None:
            counts = counts + PRIOR_WEIGHT * self._parent.shares()
        shares: np.ndarray = counts / counts.sum()
        return shares

    def rate(self, bin_index: int) -> float:
        """Return the return rate of a gap that has lasted to the beginning of a bin."""
        self._refresh()
        return self._rates[bin_index]

    def left_s(self, bin_index: int) -> float:
        """Return the mean seconds such a gap goes on."""
        self._refresh()
        return self._left_s[bin_index]

    def _refresh(self) -> None:
        """Work the rates out anew once there are a tenth more samples than last time."""
        if self.num_samples <= self._fresh_until:
            return
        self._fresh_until = self.num_samples + self.num_samples // 10
        shares = self.shares()
        # In a bin, gaps end in its middle.
        survive = np.concatenate((np.cumsum(shares[::-1])[::-1], [0.0]))
        kept_s = np.cumsum(_WIDTH_S * (survive[:-1] + survive[1:]) / 2)
        before_s = np.concatenate(([0.0], kept_s[:-1]))
        alive = np.maximum(survive[:-1], 1e-12)
        gained = survive[:-1, None] - survive[None, 1:]  # from bin i, back by the end of bin j
        spent_s = kept_s[None, :] - before_s[:, None]
        rates = np.where(spent_s > 0, gained / np.maximum(spent_s, 1e-12), 0.0)
        self._rates = np.triu(rates).max(axis=1).tolist()
        self._left_s = ((kept_s[-1] - before_s) / alive).tolist()


_EDGES_S = FIRST_EDGE_S * 2.0 ** (np.arange(NUM_BINS) / EDGES_PER_OCTAVE)
_WIDTH_S = np.diff(np.concatenate(([0.0], _EDGES_S)))


def _bin(gap_s: float) -> int:
    if gap_s < FIRST_EDGE_S:
        return 0
    index = int(EDGES_PER_OCTAVE * math.log2(gap_s / FIRST_EDGE_S)) + 1
    return min(index, NUM_BINS - 1)


def _lognormal_shares(mu: float, sigma: float) -> np.ndarray:
    z = [(math.log(edge) - mu) / (sigma * math.sqrt(2)) for edge in _EDGES_S]
    below = np.array([0.0, *(0.5 * (1 + math.erf(value)) for value in z)])
    below[-1] = 1.0
    return np.diff(below)


class GapModel:
    """Learns from gaps that are over and tells of those that last."""

    __slots__ = ("_causes", "_tools")

    def __init__(self) -> None:
        tool = _lognormal_shares(*_TOOL_PRIOR)
        human = _lognormal_shares(*_HUMAN_PRIOR)
        anything = _Curve(None, PRIOR_WEIGHT * (0.85 * tool + 0.15 * human))
        self._causes = {
            GapCause.UNKNOWN: anything,
            GapCause.TOOL: _Curve(None, PRIOR_WEIGHT * tool),
            GapCause.HUMAN: _Curve(None, PRIOR_WEIGHT * human),
            GapCause.CHILDREN: _Curve(anything),
        }
        self._tools: dict[str, _Curve] = {}

    def observe(self, hint: GapHint, gap_s: float) -> None:
        """Learn from a gap that is over."""
        index = _bin(gap_s)
        if hint.cause is GapCause.TOOL:
            for name in hint.tools:
                curve = self._tools.get(name)
                if curve is None and len(self._tools) == MOST_TOOLS:
                    continue
                if curve is None:
                    curve = self._tools[name] = _Curve(self._causes[GapCause.TOOL])
                curve.observe(index)
        self._causes[hint.cause].observe(index)

    def return_rate(self, hint: GapHint, elapsed_s: float) -> float:
        """Return how soon a gap that has lasted so long may end: an index, per second."""
        if hint.expected_s is not None and elapsed_s < OVERRUN * hint.expected_s:
            return 1.0 / max(hint.expected_s - elapsed_s, hint.expected_s / OVERRUN, 0.05)
        return self._curve(hint).rate(_bin(elapsed_s))

    def left_s(self, hint: GapHint, elapsed_s: float) -> float:
        """Return the mean seconds that it goes on."""
        if hint.expected_s is not None and elapsed_s < OVERRUN * hint.expected_s:
            return max(hint.expected_s - elapsed_s, hint.expected_s / OVERRUN)
        return self._curve(hint).left_s(_bin(elapsed_s))

    def _curve(self, hint: GapHint) -> _Curve:
        """Return the curve of the tool that takes longest: all of them must end."""
        if hint.cause is GapCause.TOOL and hint.tools:
            known = [self._tools[name] for name in hint.tools if name in self._tools]
            if known:
                return known[0] if len(known) == 1 else max(known, key=lambda c: c.left_s(0))
        return self._causes[hint.cause]
