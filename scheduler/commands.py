"""What the scheduler wants done. Frozen values; whoever drives it carries them out, in order.

The KV commands name a session: they concern the KV of its latest context. A replica that can't
carry one out ignores it, and the next turn finds less KV than was hoped for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.ids import ReplicaId, SessionId, TurnId


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run the turn on that replica, now.

    Attributes:
        priority: Smaller goes first in an engine that looks at priorities.
        num_expected_cached_tokens: Of its prompt, there by the policy's reckoning; for whoever
            explains the decision, and no part of it.
    """

    turn_id: TurnId
    replica_id: ReplicaId
    priority: int = 0
    num_expected_cached_tokens: int = field(default=0, compare=False)


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


@dataclass(frozen=True, slots=True)
class Retain:
    """Keep the session's KV on that replica until it is released or dropped."""

    session_id: SessionId
    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class Release:
    """Keep it no longer; it stays until the replica needs the room."""

    session_id: SessionId
    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class Drop:
    """Give up its HBM now, but for what it shares with others; host memory may keep a copy."""

    session_id: SessionId
    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class Pull:
    """Copy its KV from one replica to another and keep it there.

    Attributes:
        ready_s: When it will be there, by the scheduler's reckoning of the links.
    """

    session_id: SessionId
    source_id: ReplicaId
    replica_id: ReplicaId
    ready_s: float


KvCommand = Retain | Release | Drop | Pull
Command = Dispatch | Refuse | KvCommand
