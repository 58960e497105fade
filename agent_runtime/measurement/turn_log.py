"""What turns and sessions took, collected as they end."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from agent_runtime.measurement.summary import FloatArray


@dataclass(frozen=True, slots=True)
class TurnTimes:
    """When a turn was sent, had its first token, and ended; seconds of one clock.

    Attributes:
        osl_tokens: Tokens it generated, >= 1.
        num_recomputed_tokens: Prompt tokens that the session's turn before had computed, and that
            were computed again.
    """

    sent_s: float
    first_token_s: float
    ended_s: float
    osl_tokens: int
    num_recomputed_tokens: int


class TurnLog:
    """One number a turn or session, appended as they end; all seconds."""

    __slots__ = ("_jct", "_slowdown", "_tpot", "_ttft", "num_recomputed_tokens", "num_turns")

    def __init__(self) -> None:
        self._ttft, self._tpot = array("d"), array("d")
        self._jct, self._slowdown = array("d"), array("d")
        self.num_turns = 0
        self.num_recomputed_tokens = 0  # computed by the turn before, and computed again

    def turn_ended(self, turn: TurnTimes) -> None:
        """Record a turn."""
        self.num_turns += 1
        self._ttft.append(turn.first_token_s - turn.sent_s)
        if turn.osl_tokens > 1:
            decoding_s = turn.ended_s - turn.first_token_s
            self._tpot.append(decoding_s / (turn.osl_tokens - 1))
        self.num_recomputed_tokens += turn.num_recomputed_tokens

    def session_completed(self, jct_s: float, slowdown: float) -> None:
        """Record a top-level session that ended well."""
        self._jct.append(jct_s)
        self._slowdown.append(slowdown)

    @property
    def ttft_s(self) -> FloatArray:
        """Seconds to the first token, a value a turn."""
        return np.array(self._ttft, dtype=np.float64)

    @property
    def tpot_s(self) -> FloatArray:
        """Seconds per output token after the first, a value a turn of two tokens or more."""
        return np.array(self._tpot, dtype=np.float64)

    @property
    def jct_s(self) -> FloatArray:
        """Seconds from a session's first arrival to its end."""
        return np.array(self._jct, dtype=np.float64)

    @property
    def slowdown(self) -> FloatArray:
        """Time in model calls over the time they take alone, a value a session."""
        return np.array(self._slowdown, dtype=np.float64)
