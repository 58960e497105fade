"""What a real engine's work costs where its hardware is not known: learned from its turns."""

from __future__ import annotations

from scheduler.cost import TransferCosts

FIRST_GUESS = (0.02, 1e-4)
"""Seconds of a prefill, and per new token, until turns have told: some 10,000 tokens a second."""

MEMORY = 200
"""Turns after which an observation has lost most of its weight."""

DECODE_S = 0.02
"""Of a token, until turns have told; it weighs how long a session would take alone."""

KV_READ_S = 1e-8
"""Of a token's KV in a step; assumed: 100,000 tokens of context add a millisecond to every step."""

NO_TRANSFERS = TransferCosts(
    kv_bytes_per_token=1.0,
    link_bytes_per_s=1.0,
    host_bytes_per_s=1.0,
    latency_s=0.0,
    replicas_per_domain=1,
)
"""Stock vLLM moves no KV between engines when told to: every replica is alone."""


class MeasuredCost:
    """A ``CostModel``: a line through times to first token: seconds = fixed + new tokens x slope.

    Least squares with exponential forgetting; the first guess counts as one observation. Attention
    over what is cached is not told apart, so long cached contexts are priced a little too low.
    """

    __slots__ = ("_sums", "decode_s", "transfer")

    def __init__(self) -> None:
        self.transfer = NO_TRANSFERS
        self.decode_s = DECODE_S
        fixed_s, slope_s = FIRST_GUESS
        self._sums = [0.0] * 5  # weight, x, y, xx, xy
        for num_tokens in (100.0, 10_000.0):
            self._add(num_tokens, fixed_s + slope_s * num_tokens, 0.5)

    def observe(self, num_new_tokens: int, seconds: float) -> None:
        """Take in a prefill that had an engine to itself."""
        if num_new_tokens < 1 or seconds <= 0:
            return
        keep = 1 - 1 / MEMORY
        self._sums = [keep * total for total in self._sums]
        self._add(float(num_new_tokens), seconds, 1.0)

    def observe_decode(self, seconds_per_token: float) -> None:
        """Take in what tokens took a turn, whoever decoded beside it."""
        self.decode_s += (seconds_per_token - self.decode_s) / MEMORY

    def beside_s(self, num_tokens: int, num_output_tokens: int, others: tuple[int, int]) -> float:
        """Return what decoding beside others costs a turn and them."""
        num_others, num_their_tokens = others
        return KV_READ_S * num_output_tokens * (num_their_tokens + num_others * num_tokens)

    def prefill_s(self, num_cached_tokens: int, num_prompt_tokens: int) -> float:
        """Return the seconds to the first token of a prompt, alone on a replica."""
        fixed_s, slope_s = self.line()
        return fixed_s + slope_s * max(1, num_prompt_tokens - num_cached_tokens)

    def line(self) -> tuple[float, float]:
        """Return the seconds of a prefill without tokens, and those of each token."""
        weight, x, y, xx, xy = self._sums
        spread = weight * xx - x * x
        slope_s = (weight * xy - x * y) / spread if spread > 0 else 0.0
        mean_x, mean_y = x / weight, y / weight
        slope_s = min(max(slope_s, 0.0), mean_y / mean_x)  # nothing is free, nor before its time
        return mean_y - slope_s * mean_x, slope_s

    def _add(self, x: float, y: float, weight: float) -> None:
        for index, value in enumerate((1.0, x, y, x * x, x * y)):
            self._sums[index] += weight * value
