"""Each turn goes where the fewest turns are active: what a load balancer without KV sense does."""

from __future__ import annotations

from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class LeastLoaded:
    """Fewest active turns first, the lowest id among equals."""

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica with the fewest active turns."""
        return Placement(rack.active_turns.least())
