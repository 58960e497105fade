"""What a simulated run leaves behind, collected turn by turn and sampled over time."""

from __future__ import annotations

from array import array

import numpy as np

from agent_runtime.simulation.session_run import SessionRun
from agent_runtime.simulation.summary import FloatArray, Timeline

MAX_SAMPLES = 512


class TurnLog:
    """One number a turn or session, appended as they end; all seconds."""

    __slots__ = ("_jct", "_slowdown", "_tpot", "_ttft", "num_recomputed_tokens", "num_turns")

    def __init__(self) -> None:
        self._ttft, self._tpot = array("d"), array("d")
        self._jct, self._slowdown = array("d"), array("d")
        self.num_turns = 0
        self.num_recomputed_tokens = 0  # computed by the turn before, and computed again

    def turn_ended(self, run: SessionRun, now_s: float, num_cached_tokens: int) -> None:
        """Record the turn that ``run`` ends at ``now_s``."""
        first_s = now_s if run.first_token_s is None else run.first_token_s
        self.num_turns += 1
        self._ttft.append(first_s - run.sent_s)
        if run.turn.osl_tokens > 1:
            self._tpot.append((now_s - first_s) / (run.turn.osl_tokens - 1))
        self.num_recomputed_tokens += max(0, run.num_reusable_tokens - num_cached_tokens)

    def session_completed(self, run: SessionRun, now_s: float) -> None:
        """Record a top-level session that ended well."""
        self._jct.append(now_s - run.started_s)
        self._slowdown.append(run.model_time.actual_s / run.model_time.solo_s)

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


class TimelineSampler:
    """Samples a run of unknown length at even steps, never keeping more than ``MAX_SAMPLES``.

    When full, every other sample goes and the step doubles.
    """

    __slots__ = ("_rows", "_step_s", "next_s")

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float, float, float]] = []
        self._step_s = 1.0
        self.next_s = 0.0

    def record(self, now_s: float, values: tuple[float, float, float, float]) -> None:
        """Take a sample; the caller asks only when ``now_s >= next_s``.

        Args:
            now_s: When.
            values: KV used ratio, KV active ratio, running turns, live sessions.
        """
        self._rows.append((now_s, *values))
        if len(self._rows) >= MAX_SAMPLES:
            self._rows = self._rows[::2]
            self._step_s *= 2
        self.next_s = now_s + self._step_s

    def timeline(self) -> Timeline:
        """Return what was sampled."""
        columns = np.array(self._rows, dtype=np.float64).reshape(-1, 5).T
        return Timeline(*columns)
