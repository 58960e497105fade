"""What bounds a reply's length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """What the caller and the machine allow, all in tokens.

    Attributes:
        max_tokens: As the caller asked, or None.
        min_tokens: At least so many.
        ignore_eos: Generate exactly ``max_tokens`` if that is given.
        room: What the replica's KV leaves after the prompt, >= 1.
    """

    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    room: int

    @property
    def cap(self) -> int:
        """The most tokens a reply can have."""
        return self.room if self.max_tokens is None else min(self.max_tokens, self.room)

    @property
    def fewest(self) -> int:
        """The fewest tokens a reply must have, short of a stop string."""
        endless = self.ignore_eos and self.max_tokens is not None
        return self.cap if endless else max(1, min(self.min_tokens, self.cap))


@dataclass(frozen=True, slots=True)
class ReplyLength:
    """How long a reply is if nothing bounds it: log-normal.

    Attributes:
        median_tokens: Outputs of coding agents: p50 214-252 (TraceLab, kv-cache-tester).
        sigma: Of the logarithm; 1.1 gives their p90 of about 900.
    """

    median_tokens: float = 220.0
    sigma: float = 1.1

    def sample(self, rng: np.random.Generator) -> int:
        """Draw a length in tokens, >= 1."""
        return max(1, round(float(rng.lognormal(math.log(self.median_tokens), self.sigma))))
