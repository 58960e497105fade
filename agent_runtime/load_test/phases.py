"""Ramp, warm-up, the window that counts, and the wait for what is under way."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phases:
    """The parts of a run, in seconds.

    Attributes:
        ramp_s: In which the load grows to what it shall be.
        warmup_s: After it, with full load; neither counts.
        duration_s: After both, what counts; None until every session has run once.
        drain_s: After it no turn starts, and turns under way are waited for so long at most.
    """

    ramp_s: float
    warmup_s: float
    duration_s: float | None
    drain_s: float

    @property
    def window_start_s(self) -> float:
        """From when on turns count."""
        return self.ramp_s + self.warmup_s

    @property
    def stop_s(self) -> float:
        """From when on no turn starts; infinite without a duration."""
        return math.inf if self.duration_s is None else self.window_start_s + self.duration_s

    def name_at(self, at_s: float) -> str:
        """Return what a reader calls the part that a time is in."""
        if at_s < self.ramp_s:
            return "ramp"
        if at_s < self.window_start_s:
            return "warm-up"
        return "measuring" if at_s < self.stop_s else "draining"
