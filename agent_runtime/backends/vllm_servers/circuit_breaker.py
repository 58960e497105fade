"""When to stop sending turns to an engine, and when to try it again. Sans-IO."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class BreakerState(Enum):
    """Whether turns may go through."""

    CLOSED = auto()
    OPEN = auto()
    """Failed too often: no turns."""
    HALF_OPEN = auto()
    """One probe is under way, whose result decides."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When it opens, and for how long.

    Attributes:
        max_failures: Consecutive ones that open it.
        first_wait_s, max_wait_s: From opening to the first probe; doubled by each that fails.
    """

    max_failures: int = 3
    first_wait_s: float = 0.5
    max_wait_s: float = 10.0


class CircuitBreaker:
    """Counts an engine's failures.

    Invariant: ``CLOSED`` exactly while fewer than ``max_failures`` failures came in a row since the
        last success; only ``CLOSED -> OPEN -> HALF_OPEN -> CLOSED | OPEN``.
    """

    __slots__ = ("_failures", "_probe_at_s", "_settings", "_wait_s", "state")

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self._settings = settings or BreakerSettings()
        self.state = BreakerState.CLOSED
        self._failures = 0
        self._wait_s = self._settings.first_wait_s
        self._probe_at_s = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether turns may go through."""
        return self.state is BreakerState.CLOSED

    def succeeded(self) -> None:
        """An answer came, of a turn or of a probe."""
        if self.state is BreakerState.OPEN:
            return  # of a turn that was sent before it opened
        self.state = BreakerState.CLOSED
        self._failures = 0
        self._wait_s = self._settings.first_wait_s

    def failed(self, now_s: float, *, certain: bool = False) -> None:
        """An answer did not come.

        Args:
            now_s: Now.
            certain: It is beyond doubt that the engine is gone; one such failure is enough.
        """
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN:
            self._wait_s = min(2 * self._wait_s, self._settings.max_wait_s)
            self._open(now_s)
        elif self.state is BreakerState.CLOSED and (
            certain or self._failures >= self._settings.max_failures
        ):
            self._open(now_s)

    def may_probe(self, now_s: float) -> bool:
        """Return whether to probe now; if so, the probe's result must be told."""
        if self.state is BreakerState.OPEN and now_s >= self._probe_at_s:
            self.state = BreakerState.HALF_OPEN
        return self.state is not BreakerState.OPEN

    def _open(self, now_s: float) -> None:
        self.state = BreakerState.OPEN
        self._probe_at_s = now_s + self._wait_s
