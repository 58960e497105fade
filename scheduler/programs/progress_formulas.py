"""Progress-TTL's formulas.

Source: vllm-router 0.1.17, ``program_scheduling/policy.rs``, ``scheduler_admission.rs`` and
``scheduler_fairness.rs``, with their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, log, sqrt
from statistics import fmean
from typing import NamedTuple

from scheduler.cost import CostModel
from scheduler.programs.log_normal import LogNormal
from scheduler.programs.rank_window import WINDOW, RankWindow

DECODE_ALPHA = 0.15
"""Share of decoding that goes on beside a prefill."""
MIN_TTL_S = 0.05
NUM_STEPS = 32
MAX_ROUNDS = 14
MIN_FORCE_S = 30.0
STEP_S, REQUEST_STEP_S, TOKEN_STEP_S = 0.0106, 0.00042, 1.42e-7
"""Of a decode step: fixed, a request and a token of context; as calibrated there."""


class ProgressLimits(NamedTuple):
    """Options of the router's command line.

    Attributes:
        max_ttl_s: Longest time to live in a tool gap.
        max_force_s: Longest that a turn waits for room.
    """

    max_ttl_s: float = 10.0
    max_force_s: float = 300.0


def miss_impact_s(cost: CostModel, num_uncached_tokens: int) -> float:
    """Return what a lost context costs: its prefill, and the decoding which that holds up.

    ``c(x) * (2 - alpha)``, with this rack's prefill for the ``c(x)`` calibrated there.
    """
    if num_uncached_tokens <= 0:
        return 0.0
    return cost.prefill_s(0, num_uncached_tokens) * (2 - DECODE_ALPHA)


def acting_ttl_s(gaps_s: Sequence[float], impact_s: float, max_ttl_s: float) -> float:
    """Return the time to stay active in a tool gap.

    It maximises ``P(T < d) * C - E[T; T < d] - d * P(T >= d)`` over 35 candidates ``d``, 32 of them
    evenly spaced in their logarithm, ``T`` log-normal; 0 until a hundred gaps were seen.
    """
    law = LogNormal.fit(gaps_s) if len(gaps_s) >= WINDOW else None
    longest_s = min(max_ttl_s, impact_s)
    if law is None or longest_s <= 0:
        return 0.0
    shortest_s = min(MIN_TTL_S, longest_s)
    ratio = log(longest_s / shortest_s) / (NUM_STEPS - 1)
    steps = (shortest_s * exp(ratio * step) for step in range(NUM_STEPS))
    best_s, best_gain_s = 0.0, 0.0
    for ttl_s in (shortest_s, longest_s, *steps):
        hit = law.cdf(ttl_s)
        gain_s = impact_s * hit - law.mean_below(ttl_s) - ttl_s * (1 - hit)
        if gain_s >= best_gain_s:
            best_s, best_gain_s = ttl_s, gain_s
    return best_s


def target_rounds(window: RankWindow) -> float:
    """Return the turns for which room is reserved: twice the mean, 1 to 14; 0 at first."""
    if not window.is_full:
        return 0.0
    return min(max(ceil(2 * window.mean_rounds), 1), MAX_ROUNDS)


def growth_reserve_tokens(window: RankWindow, remaining_rounds: Sequence[float]) -> float:
    """Return the room that a candidate and the active programs are yet to grow into."""
    rounds = target_rounds(window)
    return window.mean_growth_tokens * (rounds + sum(remaining_rounds)) if rounds > 0 else 0.0


def force_after_s(rounds_ahead: float, requests_per_s: float, max_force_s: float) -> float:
    """Return how long a program waits at most: thrice the work ahead, and 30 s at least."""
    if requests_per_s <= 0:
        return max_force_s
    return min(max(3 * rounds_ahead / requests_per_s, MIN_FORCE_S), max_force_s)


def repair_score(active_s: float, input_tokens: int, mean_prompt_tokens: float) -> float:
    """Return how much rather a program is paused than others; the longest active, the shortest."""
    ratio = max(input_tokens / mean_prompt_tokens, 1e-6)
    return active_s * max(0.5, 1 / sqrt(ratio))


def decode_tokens_per_s(num_requests: int, num_context_tokens: int) -> float:
    """Return ``thr(B, C)`` of a batch."""
    return num_requests / (
        STEP_S + REQUEST_STEP_S * num_requests + TOKEN_STEP_S * num_context_tokens
    )


class BatchGain(NamedTuple):
    """Whether one more request in the batch is worth what it takes from the others' reserve.

    Attributes:
        num_running, num_running_tokens: Programs that reason, and their contexts.
        candidate_tokens: Context of the one more.
        room_tokens: What is left of the replica without it.
        required_tokens: What it needs now.
        protected: ``(remaining rounds, impact of a miss)`` of the active programs.
        recovery_s: To compute the candidate's context.
    """

    num_running: int
    num_running_tokens: int
    candidate_tokens: int
    room_tokens: float
    required_tokens: float
    protected: Sequence[tuple[float, float]]
    recovery_s: float

    def admits(self, window: RankWindow) -> bool:
        """Return whether ``gain >= recovery cost + continuity loss``."""
        if not window.is_full or self.num_running == 0 or window.mean_decode_s <= 0:
            return False
        before = decode_tokens_per_s(self.num_running, self.num_running_tokens)
        after = decode_tokens_per_s(
            self.num_running + 1, self.num_running_tokens + self.candidate_tokens
        )
        gain_s = window.mean_decode_s * max(0.0, after / before - 1)
        return gain_s >= self.recovery_s + self._continuity_loss_s(window)

    def _continuity_loss_s(self, window: RankWindow) -> float:
        """Return the misses of others, for the rounds that there is no room for any more."""
        growth = window.mean_growth_tokens
        if growth <= 0:
            return 0.0
        rounds = sum(remaining for remaining, _ in self.protected)
        before = min(rounds, max(0.0, self.room_tokens) / growth)
        reserve = growth * target_rounds(window)
        left = max(0.0, max(0.0, self.room_tokens) - self.required_tokens - reserve)
        after = min(rounds, left / growth)
        if after <= 0:
            return float("inf") if before > 0 else 0.0
        return (before - after) / after * fmean(impact for _, impact in self.protected)
