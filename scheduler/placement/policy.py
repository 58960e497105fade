"""The seam between the cluster scheduler and its policies."""

from __future__ import annotations

from typing import Protocol

from scheduler.events import TurnArrived
from scheduler.ids import ReplicaId
from scheduler.rack_load import RackLoad
from scheduler.session import Session


class PlacementPolicy(Protocol):
    """Names the replica a turn runs on."""

    def place(self, turn: TurnArrived, session: Session, rack: RackLoad) -> ReplicaId:
        """Return a replica, ``0 <= id < rack.num_replicas``; O(log replicas)."""
        ...
