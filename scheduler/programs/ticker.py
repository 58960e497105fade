"""When a policy that acts at fixed intervals acts next."""

from __future__ import annotations

import math


class Ticker:
    """Rings at whole multiples of a period, while somebody wants it to.

    Attributes:
        next_s: When it rings next; None while nobody wants it to.
    """

    __slots__ = ("_period_s", "next_s")

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self.next_s: float | None = None

    def want(self, now_s: float) -> None:
        """Ring at the next multiple, if it does not already."""
        if self.next_s is None:
            at_s = (math.floor(now_s / self._period_s) + 1) * self._period_s
            self.next_s = at_s if at_s > now_s else at_s + self._period_s  # of rounded quotients

    def rings(self, now_s: float) -> bool:
        """Return whether it is time, once; it must then be wanted again."""
        if self.next_s is None or now_s < self.next_s:
            return False
        self.next_s = None
        return True


def earliest(*times_s: float | None) -> float | None:
    """Return the first of several times, None for never."""
    return min((at_s for at_s in times_s if at_s is not None), default=None)
