"""The clock of a virtual world: seconds from 0, shared by every loop that lives in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent_runtime.errors import VirtualTimeError

MAX_TIME_S = 8e6
"""Beyond it ``now + 1 ns == now`` in a float, and timers would never fire."""


class VirtualClock:
    """Moves only when told to.

    A *job* is what an executor would run in a thread. It runs at once, and its sleeps add up in
    ``job_s`` instead of moving the clock: the world goes on while it sleeps, and learns of its
    result when it has slept.

    Attributes:
        on_move: Told of every new reading.

    Invariant: ``now_s`` never falls.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.job_s: float | None = None
        self.on_move: Callable[[float], None] | None = None

    @property
    def reading_s(self) -> float:
        """The time as whoever runs now sees it."""
        return self.now_s if self.job_s is None else self.now_s + self.job_s

    def move_to(self, at_s: float) -> None:
        """Move on to ``at_s``, unless it is past.

        Raises:
            VirtualTimeError: Farther than floats can tell instants apart.
        """
        if at_s <= self.now_s:
            return
        if at_s > MAX_TIME_S:
            raise VirtualTimeError(
                f"virtual time would pass {MAX_TIME_S:,.0f} s, where floats can't tell instants "
                "apart: is a sleep endless?"
            )
        self.now_s = at_s
        if self.on_move is not None:
            self.on_move(self.reading_s)

    def sleep_in_job(self, duration_s: float) -> None:
        """Let time pass for the job that runs now."""
        assert self.job_s is not None  # noqa: S101 - the caller looked
        self.job_s += duration_s
        if self.on_move is not None:
            self.on_move(self.reading_s)

    @contextmanager
    def job(self) -> Iterator[None]:
        """Run a job inside; ``job_s`` then says how long it slept."""
        outer, self.job_s = self.job_s, 0.0
        try:
            yield
        finally:
            self.job_s = outer
            if self.on_move is not None:
                self.on_move(self.reading_s)
