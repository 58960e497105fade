"""The seam between the runtime and whatever runs turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from agent_runtime.turns import TurnProgress, TurnRequest
from scheduler.commands import KvCommand
from scheduler.ids import ReplicaId, SessionId, TurnId


class Backend(Protocol):
    """A set of replicas, ids from 0."""

    def submit(
        self, replica_id: ReplicaId, request: TurnRequest, priority: int = 0
    ) -> AsyncIterator[TurnProgress]:
        """Start a turn; the iterator yields until ``finished``.

        Raises:
            BackendError: Here or while iterating; the turn is over.
        """
        ...

    def end_output(self, replica_id: ReplicaId, turn_id: TurnId, num_tokens: int) -> None:
        """Let a turn stop at so many output tokens, or as soon after as it can."""
        ...

    def abort(self, replica_id: ReplicaId, turn_id: TurnId) -> None:
        """Stop a turn and free its KV; an unknown turn is ignored."""
        ...

    def carry_out(self, command: KvCommand, block_hashes: Sequence[int], now_s: float) -> None:
        """Keep, move or give up KV of a session whose latest context has these hashes.

        A backend that can't ignores it.
        """
        ...

    def session_closed(self, session_id: SessionId) -> None:
        """Take in that a session will not return, or is not known any more."""
        ...

    def call_at(self, at_s: float, wake: Callable[[float], None]) -> None:
        """Call back at an emulated time, with the time; instead of what was asked for before."""
        ...
