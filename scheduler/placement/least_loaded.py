"""Each turn goes where the fewest turns are active: what a load balancer without KV sense does."""

from __future__ import annotations

from scheduler.events import TurnArrived
from scheduler.ids import ReplicaId
from scheduler.rack_load import RackLoad
from scheduler.session import Session


class LeastLoaded:
    """Fewest active turns first, the lowest id among equals."""

    def place(self, turn: TurnArrived, session: Session, rack: RackLoad) -> ReplicaId:  # noqa: ARG002 - protocol
        """Return the replica with the fewest active turns."""
        return rack.active_turns.least()
