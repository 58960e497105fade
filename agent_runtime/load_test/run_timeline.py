"""A run over time, in equal bins."""

from __future__ import annotations

import math

import numpy as np

from agent_runtime.load_test.seen_turns import SeenTurns
from agent_runtime.load_test.summary import LoadTimeline

MAX_BINS = 120
SHORTEST_BIN_S = 0.1
STEPS = (1, 2, 5, 10)


def run_timeline(seen: SeenTurns) -> LoadTimeline:
    """Return what went on from the beginning of the load to its end."""
    bin_s = _bin_s(seen.end_s)
    num_bins = max(1, math.ceil(seen.end_s / bin_s))
    edges = np.arange(num_bins + 1) * bin_s
    times, counts = seen.token_times()
    tokens = np.histogram(times, edges, weights=counts)[0]
    failed = [turn.ended_s for turn in seen.every if turn.error is not None]
    ttfts: list[list[float]] = [[] for _ in range(num_bins)]
    for turn in seen.every:
        if not math.isnan(turn.ttft_s):
            ttfts[min(num_bins - 1, int(turn.due_s / bin_s))].append(turn.ttft_s)
    return LoadTimeline(
        bin_s=bin_s,
        streams=_mean_streams(seen, num_bins, bin_s),
        output_tokens_per_s=(tokens / bin_s).tolist(),
        ttft_p50_s=[float(np.median(some)) if some else None for some in ttfts],
        errors=np.histogram(failed, edges)[0].tolist(),
    )


def _mean_streams(seen: SeenTurns, num_bins: int, bin_s: float) -> list[float]:
    """Return how many streams there were on average in each bin; O(bins + turns)."""
    busy_s = np.zeros(num_bins)
    whole = np.zeros(num_bins + 1)
    for turn in seen.every:
        if math.isnan(turn.sent_s):
            continue
        start = max(0.0, turn.sent_s)
        end = max(start, turn.ended_s if turn.is_finished else seen.end_s)
        first, last = (min(num_bins - 1, int(at / bin_s)) for at in (start, end))
        if first == last:
            busy_s[first] += end - start
            continue
        busy_s[first] += (first + 1) * bin_s - start
        busy_s[last] += end - last * bin_s
        whole[first + 1] += 1
        whole[last] -= 1
    return [float(value) for value in busy_s / bin_s + np.cumsum(whole)[:-1]]


def _bin_s(length_s: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that at most ``MAX_BINS`` fit."""
    least = max(SHORTEST_BIN_S, length_s / MAX_BINS)
    decade = 10.0 ** math.floor(math.log10(least))
    return next(decade * step for step in STEPS if decade * step >= least * (1 - 1e-9))
