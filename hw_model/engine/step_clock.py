"""The seam between an engine and whatever knows how long its steps take."""

from __future__ import annotations

from typing import Protocol

from hw_model.step_time import StepShape


class StepTime(Protocol):
    """Seconds of steps: a roofline (``StepTimeModel``) or a card's own profile."""

    def step_s(self, shape: StepShape) -> float:
        """Return the seconds of one step, > 0."""
        ...

    def decode_line(self, num_sequences: int) -> tuple[float, float]:
        """Return ``(fixed_s, per_kv_token_s)``: decode steps are affine in their summed context."""
        ...
