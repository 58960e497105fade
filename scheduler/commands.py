"""What the scheduler wants done. Frozen values; whoever drives it carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.ids import ReplicaId, TurnId


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run the turn on that replica, now."""

    turn_id: TurnId
    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class Refuse:
    """The turn can never run: its context is longer than one replica holds.

    Attributes:
        num_tokens: Prompt and output it asked for.
        limit_tokens: What one replica holds.
    """

    turn_id: TurnId
    num_tokens: int
    limit_tokens: int


Command = Dispatch | Refuse
