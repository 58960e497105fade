"""Policies that must be told when replicas go and come back.

A module of its own because it is asked for at run time, which compiled protocols can't be.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from scheduler.ids import ReplicaId
from scheduler.rack import Rack


@runtime_checkable
class MindsReplicas(Protocol):
    """A policy with a book of its own of what lies where.

    Others need no telling: the rack sends what they place on a replica that is down elsewhere.
    """

    def replica_down(self, replica_id: ReplicaId, rack: Rack) -> None:
        """A replica takes no turns any more, and its KV is lost; ``rack.down`` has it."""
        ...

    def replica_up(self, replica_id: ReplicaId, rack: Rack) -> None:
        """It is back, and empty."""
        ...
