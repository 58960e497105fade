"""What a capacity plan is asked to carry: agent sessions, and how soon they want answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from hw_model.errors import ConfigError


class ToolGap(Protocol):
    """How long an agent's tools run between two turns, as a distribution."""

    @property
    def mean_s(self) -> float:
        """Mean gap."""
        ...

    def share_beyond(self, time_s: float) -> float:
        """Return the share of gaps longer than ``time_s``."""
        ...

    def mean_excess_s(self, time_s: float) -> float:
        """Return the mean of what gaps last beyond ``time_s``, 0 for those that don't."""
        ...


@dataclass(frozen=True, slots=True)
class ExponentialGap:
    """Gaps of a given mean, memoryless.

    Attributes:
        mean_s: >= 0.
    """

    mean_s: float

    def share_beyond(self, time_s: float) -> float:
        """Return the share of gaps longer than ``time_s``."""
        return math.exp(-time_s / self.mean_s) if self.mean_s > 0 else 0.0

    def mean_excess_s(self, time_s: float) -> float:
        """Return the mean of what gaps last beyond ``time_s``, 0 for those that don't."""
        return self.mean_s * self.share_beyond(time_s)


@dataclass(frozen=True, slots=True)
class MixedGap:
    """Classes of gaps, log-uniform inside each.

    Attributes:
        classes: ``(share, shortest_s, longest_s)`` each, 0 < shortest < longest; shares sum to 1.
    """

    classes: tuple[tuple[float, float, float], ...]

    @property
    def mean_s(self) -> float:
        """Mean gap."""
        return self.mean_excess_s(0.0)

    def share_beyond(self, time_s: float) -> float:
        """Return the share of gaps longer than ``time_s``."""
        return sum(
            share * math.log(longest / max(time_s, shortest)) / math.log(longest / shortest)
            for share, shortest, longest in self.classes
            if time_s < longest
        )

    def mean_excess_s(self, time_s: float) -> float:
        """Return the mean of what gaps last beyond ``time_s``, 0 for those that don't."""
        total_s = 0.0
        for share, shortest, longest in self.classes:
            if time_s < longest:
                start = max(time_s, shortest)
                area = (longest - start) - time_s * math.log(longest / start)
                total_s += share * area / math.log(longest / shortest)
        return total_s


AGENT_GAP = MixedGap(
    ((0.61, 0.05, 1.0), (0.27, 1.0, 10.0), (0.08, 10.0, 60.0), (0.04, 60.0, 600.0))
)
"""Coding agents: 61 % of gaps under 1 s, 27 % to 10 s, 8 % to 1 min, 4 % longer; mean 12.9 s.

Source: TraceLab, arXiv 2606.30560, for the shares; the outer bounds and the shape inside a class
are assumed, as in the simulator's ``coding-agents``.
"""


@dataclass(frozen=True, slots=True)
class AgentLoad:
    """Sessions that take turns without end: a tool gap, a prompt, an answer, and again.

    Attributes:
        sessions: Live at once, >= 1.
        context_tokens: Prompt of a typical turn, its history included.
        append_tokens: Of those, new since the turn before; all that a resident session computes.
        output_tokens: Answer of a turn.
        gap: Between the end of a turn and the arrival of the next.
    """

    sessions: int
    context_tokens: int
    append_tokens: int
    output_tokens: int
    gap: ToolGap

    def __post_init__(self) -> None:
        if min(self.sessions, self.context_tokens, self.append_tokens, self.output_tokens) < 1:
            raise ConfigError("sessions, context, append and output must each be at least 1")
        if self.append_tokens > self.context_tokens:
            raise ConfigError(
                f"a turn can't append {self.append_tokens:,} tokens to end at a context of "
                f"{self.context_tokens:,}: the context includes what is appended"
            )

    @property
    def session_tokens(self) -> int:
        """KV that a session holds when its turn ends."""
        return self.context_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Slo:
    """What a turn may take; compared with means over turns.

    Attributes:
        ttft_s: Arrival to first token, > 0.
        tpot_s: Between tokens after the first, > 0.
    """

    ttft_s: float
    tpot_s: float
