"""Two replicas at random, the less loaded of them."""

from __future__ import annotations

import numpy as np

from scheduler.ids import ReplicaId
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class PowerOfTwo:
    """Fewer active turns of two drawn, the first of equals. Source: Mitzenmacher 2001."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 2])

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return one of two."""
        first, second = self._rng.integers(0, rack.num_replicas, 2).tolist()
        loads = rack.active_turns.loads
        return Placement(ReplicaId(second if loads[second] < loads[first] else first))
