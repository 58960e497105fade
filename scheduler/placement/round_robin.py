"""Turns go round the replicas, whoever they belong to. The floor: it ignores KV altogether."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class RoundRobin:
    """Cycles through the replicas, one turn each."""

    def __init__(self, num_replicas: int) -> None:
        self._num_replicas = num_replicas
        self._next = 0

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the next replica in turn."""
        replica = ReplicaId(self._next)
        self._next = (self._next + 1) % self._num_replicas
        return Placement(replica)
