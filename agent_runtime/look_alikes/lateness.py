"""How far behind its own times the emulation is: the measure of whether it may be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import anyio

from agent_runtime.clock import Clock, monotonic_s
from agent_runtime.look_alikes.prometheus_text import Histogram, quantile
from agent_runtime.turns import TurnProgress

TOLERATED_S = 0.020
BOUNDS_S = tuple(round(0.000_25 * 1.5**power, 6) for power in range(30))
"""From a quarter of a millisecond to half a minute."""

CHECKED_EVERY_S = 10.0
LEAST_BATCHES = 100
"""Fewer in such a time say little."""


@dataclass(frozen=True, slots=True)
class LatenessSummary:
    """Real seconds by which tokens were handed to their connections too late.

    Attributes:
        num_batches: Of tokens; those of one step and one stream count once.
        counts: By bucket of ``BOUNDS_S``.
    """

    num_batches: int
    counts: tuple[int, ...]

    @classmethod
    def of(cls, counts: Sequence[Sequence[int]]) -> LatenessSummary:
        """Return the sum of several histograms' counts."""
        added = tuple(sum(column) for column in zip(*counts, strict=True))
        return cls(sum(added), added or (0,) * (len(BOUNDS_S) + 1))

    def since(self, earlier: LatenessSummary) -> LatenessSummary:
        """Return what came after ``earlier``."""
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return LatenessSummary(self.num_batches - earlier.num_batches, counts)

    @property
    def p50_s(self) -> float:
        """Half of the batches were no later."""
        return quantile(BOUNDS_S, self.counts, 0.50)

    @property
    def p99_s(self) -> float:
        """All but one in a hundred were no later."""
        return quantile(BOUNDS_S, self.counts, 0.99)

    @property
    def keeps_time(self) -> bool:
        """Whether timing measured on this emulation means what it says."""
        return self.p99_s <= TOLERATED_S

    def describe(self) -> str:
        """Return it in words."""
        if self.num_batches == 0:
            return "no tokens were sent"
        return (
            f"{self.num_batches:,} token batches, late by p50 {self.p50_s * 1e3:.1f} ms, "
            f"p99 {self.p99_s * 1e3:.1f} ms"
        )


class LatenessMeter:
    """The lateness of one replica's tokens.

    Args:
        clock: The emulation's.

    Attributes:
        histogram: Real seconds, by ``BOUNDS_S``.
    """

    __slots__ = ("_clock", "histogram")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.histogram = Histogram(BOUNDS_S)

    def count(self, progress: TurnProgress, asked_at: float) -> None:
        """Count tokens that are handed on now.

        Args:
            progress: The tokens.
            asked_at: When their reader was ready for them, by ``monotonic_s``: a slow client's
                delay is not ours.
        """
        if progress.due_s is not None:
            due_at = max(self._clock.deadline(progress.due_s), asked_at)
            self.histogram.observe(max(0.0, monotonic_s() - due_at))


async def watch_lateness(
    summary: Callable[[], LatenessSummary],
    warn: Callable[[str], None],
    every_s: float = CHECKED_EVERY_S,
) -> None:
    """Say so whenever tokens of the last seconds came too late; until cancelled."""
    before = summary()
    while True:
        await anyio.sleep(every_s)
        now = summary()
        lately, before = now.since(before), now
        if lately.num_batches >= LEAST_BATCHES and not lately.keeps_time:
            warn(too_late(lately))


def too_late(lateness: LatenessSummary) -> str:
    """Return a warning that says what to do."""
    return (
        f"warning: this machine can't keep up ({lateness.describe()}; {TOLERATED_S * 1e3:.0f} ms "
        "are tolerated), so times measured here are too long: use fewer streams or replicas, a "
        "lower --speed, more --processes if there are cores to spare, or 'make compile'"
    )


def merged(summaries: Iterable[LatenessSummary]) -> LatenessSummary:
    """Return the lateness of several processes as one."""
    return LatenessSummary.of([summary.counts for summary in summaries])
