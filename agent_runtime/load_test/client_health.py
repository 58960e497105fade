"""Whether the client keeps up: its event loop's lag and its share of a core."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import anyio
import numpy as np
from numpy.typing import NDArray

TICK_S = 0.05
FloatArray = NDArray[np.float64]


class ClientHealth:
    """Looks at its own process at every tick.

    Args:
        now_s: The time since the run began.
        cpu_s: CPU seconds of this process so far.
    """

    def __init__(self, now_s: Callable[[], float], cpu_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._cpu_s = cpu_s
        self._at_s: array[float] = array("d")
        self._lag_s: array[float] = array("d")
        self._used_s: array[float] = array("d")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due_s = self._now_s() + TICK_S
            await anyio.sleep(TICK_S)
            now_s = self._now_s()
            self._at_s.append(now_s)
            self._lag_s.append(max(0.0, now_s - due_s))
            self._used_s.append(self._cpu_s())

    def lags_s(self, start_s: float, stop_s: float) -> FloatArray:
        """Return by how much each tick of a time was late, the loop being busy with others."""
        at_s = np.asarray(self._at_s)
        return np.asarray(self._lag_s)[(at_s >= start_s) & (at_s <= stop_s)]

    def cpu_share(self, start_s: float, stop_s: float) -> float | None:
        """Return the share of one core that the process used; None for less than two ticks."""
        at_s = np.asarray(self._at_s)
        inside = np.flatnonzero((at_s >= start_s) & (at_s <= stop_s))
        if inside.size < 2:  # noqa: PLR2004 - a beginning and an end
            return None
        first, last = inside[0], inside[-1]
        used = np.asarray(self._used_s)
        return float((used[last] - used[first]) / (at_s[last] - at_s[first]))
