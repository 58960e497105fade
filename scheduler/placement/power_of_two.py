"""Two replicas at random, the less loaded of them."""

from __future__ import annotations

import numpy as np

from scheduler.ids import ReplicaId
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class PowerOfTwo:
    """Fewer active turns of two different replicas drawn, the first of equals.

    Source: Mitzenmacher 2001; vllm-router 0.1.17 ``src/policies/power_of_two.rs``, its own count of
    requests under way as the load.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 2])

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return one of two."""
        if rack.num_replicas == 1:
            return Placement(ReplicaId(0))
        first = int(self._rng.integers(rack.num_replicas))
        second = int(self._rng.integers(rack.num_replicas - 1))
        if second >= first:
            second += 1
        loads = rack.active_turns.loads
        return Placement(ReplicaId(second if loads[second] < loads[first] else first))
