"""Samples of a rack over a run of unknown length."""

from __future__ import annotations

import numpy as np

from agent_runtime.measurement.summary import Timeline

MAX_SAMPLES = 512


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
