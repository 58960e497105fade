"""The mean of all that was seen so far."""

from __future__ import annotations


class RunningMean:
    """A mean that starts at a guess, which the first value replaces."""

    __slots__ = ("count", "mean")

    def __init__(self, guess: float = 0.0) -> None:
        self.mean = guess
        self.count = 0

    def add(self, value: float) -> None:
        """Take in one value."""
        self.count += 1
        self.mean += (value - self.mean) / self.count if self.count > 1 else value - self.mean
