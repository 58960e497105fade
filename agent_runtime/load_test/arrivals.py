"""When sessions start: so many at a time, at random at a rate, or when a trace says.

Open-loop times are drawn before the run and do not depend on the server: whoever is slow does not
get less to do (coordinated omission).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from typing_extensions import override

from agent_runtime.errors import ConfigError

EXPECTED = "closed, poisson:RATE (sessions a second, e.g. poisson:0.5) or trace"


class ArrivalKind(StrEnum):
    """What makes a session start."""

    CLOSED = "closed"
    POISSON = "poisson"
    TRACE = "trace"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How sessions start.

    Attributes:
        kind: Of load. Closed: the end of another session. Open: a time that was set before.
        rate_per_s: Sessions a second, of a Poisson process; else None.
    """

    kind: ArrivalKind
    rate_per_s: float | None = None

    @classmethod
    def parse(cls, text: str) -> Arrivals:
        """Read ``closed``, ``poisson:RATE`` or ``trace``.

        Raises:
            ConfigError: It is none of them.
        """
        name, colon, rate = text.partition(":")
        if name == ArrivalKind.POISSON:
            try:
                rate_per_s = float(rate)
            except ValueError:
                rate_per_s = math.nan
            if 0 < rate_per_s < math.inf:
                return cls(ArrivalKind.POISSON, rate_per_s)
        elif not colon and name in {ArrivalKind.CLOSED, ArrivalKind.TRACE}:
            return cls(ArrivalKind(name))
        raise ConfigError(f"--arrival {text}: expected {EXPECTED}")

    @override
    def __str__(self) -> str:
        """Return it as it is read."""
        return self.kind if self.rate_per_s is None else f"{self.kind}:{self.rate_per_s:g}"


def lane_starts(num_lanes: int, ramp_s: float) -> list[float]:
    """Return when each of the sessions at a time starts first, evenly over the ramp."""
    return [ramp_s * lane / num_lanes for lane in range(num_lanes)]


def poisson_times(rate_per_s: float, ramp_s: float, seed: int) -> Iterator[float]:
    """Yield the times of a Poisson process, without end, in seconds from 0.

    Args:
        rate_per_s: > 0, from the end of the ramp on.
        ramp_s: The rate grows linearly from 0 so long.
        seed: Of the process; the times depend on it, the rate and the ramp alone.

    Source: time change of a unit process by the inverse of its cumulative rate, which is
    ``rate t^2 / (2 ramp)`` up to the end of the ramp and ``rate (t - ramp / 2)`` after it.
    """
    random = np.random.default_rng([seed, 1])
    expected = 0.0
    in_ramp = rate_per_s * ramp_s / 2
    while True:
        expected += float(random.exponential())
        if expected < in_ramp:
            yield math.sqrt(2 * ramp_s * expected / rate_per_s)
        else:
            yield expected / rate_per_s + ramp_s / 2


def trace_times(arrives_s: Sequence[float], scale: float) -> Iterator[float]:
    """Yield recorded times, the first at 0, all distances times ``scale``."""
    for at_s in arrives_s:
        yield (at_s - arrives_s[0]) * scale
