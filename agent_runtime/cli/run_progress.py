"""A line on the terminal that says how far a run is while somebody else's program prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scheduler.decision import Decision
from scheduler.events import TurnArrived, TurnEnded

INTERVAL_S = 0.2
CLEAR_LINE = "\r\x1b[K"


class RunProgress:
    """Counts decisions and shows the count now and then.

    Args:
        stopwatch: Wall seconds from any origin.
        shown: Whether to show anything at all.
    """

    def __init__(self, stopwatch: Callable[[], float], *, shown: bool) -> None:
        self._stopwatch = stopwatch
        self._shown = shown
        self._shown_at_s = stopwatch()
        self._num_ended = 0
        self._num_running = 0

    @contextmanager
    def line(self) -> Iterator[None]:
        """Leave the terminal as it was when the context is left."""
        try:
            yield
        finally:
            if self._shown:
                sys.stderr.write(CLEAR_LINE)
                sys.stderr.flush()

    def on_decision(self, decision: Decision) -> None:
        """Count a decision."""
        match decision.event:
            case TurnArrived():
                self._num_running += 1
            case TurnEnded():
                self._num_running -= 1
                self._num_ended += 1
            case _:
                pass
        if self._shown and self._stopwatch() - self._shown_at_s >= INTERVAL_S:
            self._shown_at_s = self._stopwatch()
            sys.stderr.write(
                f"{CLEAR_LINE}{_clock(decision.now_s)} emulated, {self._num_ended:,} turns, "
                f"{self._num_running:,} running"
            )
            sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
