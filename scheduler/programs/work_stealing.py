"""When an idle worker takes a session from a busy one, and which.

Source: SAGA, arXiv 2605.00528, and ``scheduler/stealing.py`` of its repository: a worker that has
been idle for 100 ms takes the oldest session in the queue of a random one with more than twice its
load.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.ids import ReplicaId

IDLE_S = 0.1
MAX_LOAD_RATIO = 2.0
LEAST_LOAD = 1e-6


class IdleWorkers:
    """Since when which workers have had nothing to do."""

    __slots__ = ("_random", "_since_s")

    def __init__(self, seed: int) -> None:
        self._since_s: dict[ReplicaId, float] = {}
        self._random = np.random.default_rng([seed, 1])

    def saw(self, worker: ReplicaId, now_s: float, *, is_idle: bool) -> None:
        """Take note of whether a worker has anything to do."""
        if is_idle:
            self._since_s.setdefault(worker, now_s)
        else:
            self._since_s.pop(worker, None)

    def next_theft_s(self, now_s: float) -> float | None:
        """Return when another worker has been idle for long enough; None if none will be."""
        times = (since_s + IDLE_S for since_s in self._since_s.values())
        return min((at_s for at_s in times if at_s > now_s), default=None)

    def thieves(self, now_s: float) -> list[ReplicaId]:
        """Return who has been idle for long enough."""
        return sorted(at for at, since_s in self._since_s.items() if since_s + IDLE_S <= now_s)

    def victim(
        self, thief: ReplicaId, loads: Sequence[float], queued: Sequence[int]
    ) -> ReplicaId | None:
        """Return whom a thief takes from, drawn from those with a queue and twice its load."""
        limit = max(loads[thief], LEAST_LOAD) * MAX_LOAD_RATIO
        overloaded = [at for at, load in enumerate(loads) if queued[at] and load > limit]
        if not overloaded:
            return None
        return ReplicaId(overloaded[int(self._random.integers(len(overloaded)))])
