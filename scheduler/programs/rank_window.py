"""What one replica has lately done: the factors of Progress-TTL's decisions.

Source: vllm-router 0.1.17, ``program_scheduling/factors.rs``.
"""

from __future__ import annotations

from collections import deque
from statistics import fmean
from typing import NamedTuple

WINDOW = 100


class RequestSample(NamedTuple):
    """A request that has ended.

    Attributes:
        growth_tokens: Of its prompt over the one before of its program; None at first, and for a
            prompt that shrank or doubled.
        num_rounds: Turns of its program with the cache intact, since a TTL last paused it.
    """

    num_prompt_tokens: int
    num_output_tokens: int
    growth_tokens: int | None
    decode_s: float
    num_rounds: int
    ended_s: float


class RankWindow:
    """The last hundred requests and gaps of a replica."""

    __slots__ = ("gaps_s", "requests")

    def __init__(self) -> None:
        self.requests: deque[RequestSample] = deque(maxlen=WINDOW)
        self.gaps_s: deque[float] = deque(maxlen=WINDOW)

    @property
    def is_full(self) -> bool:
        """Whether there are requests enough to estimate from."""
        return len(self.requests) == WINDOW

    @property
    def mean_growth_tokens(self) -> float:
        """Of the requests that grew; 0 without any."""
        grown = [one.growth_tokens for one in self.requests if one.growth_tokens is not None]
        return fmean(grown) if grown else 0.0

    @property
    def mean_prompt_tokens(self) -> float:
        """At least 1."""
        prompts = [one.num_prompt_tokens for one in self.requests]
        return max(1.0, fmean(prompts)) if prompts else 1.0

    @property
    def mean_output_tokens(self) -> float:
        """0 without any."""
        return fmean(one.num_output_tokens for one in self.requests) if self.requests else 0.0

    @property
    def mean_decode_s(self) -> float:
        """0 without any."""
        return fmean(one.decode_s for one in self.requests) if self.requests else 0.0

    @property
    def mean_rounds(self) -> float:
        """0 without any."""
        return fmean(one.num_rounds for one in self.requests) if self.requests else 0.0

    @property
    def requests_per_s(self) -> float:
        """Between the first and the last; 0 if that can't be told."""
        if len(self.requests) < 2:  # noqa: PLR2004 - two make a rate
            return 0.0
        took_s = self.requests[-1].ended_s - self.requests[0].ended_s
        return (len(self.requests) - 1) / took_s if took_s > 0 else 0.0
