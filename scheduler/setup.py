"""What a policy is made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from scheduler.cost import CostModel
from scheduler.ids import SessionId
from scheduler.rack import ReplicaFleet


class Oracle(Protocol):
    """Knows what will happen; there is one in simulations only."""

    def gap_s(self, session_id: SessionId) -> float:
        """Return how long the tool gap that begins now will be; infinite after the last turn."""
        ...

    def left(self, session_id: SessionId) -> tuple[int, int]:
        """Return the new prompt tokens and the output tokens of a session's turns to come."""
        ...


@dataclass(frozen=True, slots=True)
class PolicySetup:
    """The rack a policy works on, and what it may know.

    Attributes:
        fleet: The replicas.
        cost: What their work costs.
        seed: Of what it draws at random.
        oracle: Knows the future, for bounds.
    """

    fleet: ReplicaFleet
    cost: CostModel
    seed: int = 0
    oracle: Oracle | None = None
