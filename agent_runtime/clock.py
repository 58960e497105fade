"""The one place that reads the time: seconds from 0, at the speed asked for."""

from __future__ import annotations

import asyncio  # noqa: TID251 - a loop's clock, asked for a dozen times a turn
import time

import anyio


def epoch_s() -> float:
    """Return seconds since 1970, for timestamps that leave the process; never for durations."""
    return time.time()  # noqa: TID251 - the one place that asks


def monotonic_s() -> float:
    """Return anyio's time as it is, not as it was when the loop last looked.

    For measuring the loop itself, in real time: uvloop's own clock stands still, in milliseconds,
    while it runs what is due.
    """
    return time.monotonic()  # noqa: TID251 - the one place that asks


class Clock:
    """Emulated seconds since it was made.

    It follows anyio's clock, so it runs in real time under a plain event loop and in virtual time
    under a virtual one.

    Args:
        speed: Emulated seconds per second; 1 is real time.
        origin_s: When it starts, on anyio's clock; by default now, which takes a running loop.
    """

    def __init__(self, speed: float = 1.0, *, origin_s: float | None = None) -> None:
        # anyio finds out whose loop runs at every look, which costs more than the rest.
        self._time = anyio.current_time if origin_s is not None else asyncio.get_running_loop().time
        self._origin_s = self._time() if origin_s is None else origin_s
        self._speed = speed

    @property
    def speed(self) -> float:
        """Emulated seconds per second."""
        return self._speed

    def now_s(self) -> float:
        """Return the emulated time."""
        return (self._time() - self._origin_s) * self._speed

    def deadline(self, at_s: float) -> float:
        """Return when emulated time ``at_s`` comes, on anyio's clock."""
        return self._origin_s + at_s / self._speed
