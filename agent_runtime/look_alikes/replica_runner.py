"""The ``TurnRunner`` of one look-alike: every turn goes straight to its engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from msgspec.structs import replace

from agent_runtime.backends.emulator import EmulatedRack
from agent_runtime.clock import monotonic_s
from agent_runtime.errors import ContextTooLongError
from agent_runtime.look_alikes.lateness import LatenessMeter
from agent_runtime.turns import (
    PlacementReason,
    RunningTurn,
    TurnPlacement,
    TurnProgress,
    TurnRequest,
)
from scheduler.events import GapHint
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.session_view import SessionView


class ReplicaRunner:
    """Runs turns on one replica of a rack. There is no scheduler: whoever connects is the router.

    Args:
        rack: Shared by all look-alikes of a process.
        replica_id: Which of its replicas.
        block_size_tokens: Tokens per KV block.
        lateness: Counts how late tokens are handed on.
    """

    def __init__(
        self,
        rack: EmulatedRack,
        replica_id: ReplicaId,
        *,
        block_size_tokens: int,
        lateness: LatenessMeter,
    ) -> None:
        self._rack = rack
        self._replica_id = replica_id
        self._block_size_tokens = block_size_tokens
        self._lateness = lateness

    @property
    def block_size_tokens(self) -> int:
        """Tokens per KV block that ``TurnRequest.block_hashes`` count in."""
        return self._block_size_tokens

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt + output that the replica can hold."""
        return self._rack.engines[self._replica_id].max_context_tokens

    @asynccontextmanager
    async def open_turn(self, request: TurnRequest) -> AsyncIterator[RunningTurn]:
        """Run a turn; leaving the context before it finished aborts it and frees its KV.

        Raises:
            ContextTooLongError: On entry; prompt + output exceed ``max_context_tokens``.
            BackendError: On entry or while iterating; the turn is over.
        """
        num_tokens = request.num_prompt_tokens + request.num_output_tokens
        if num_tokens > self.max_context_tokens:
            raise ContextTooLongError(
                f"This model's maximum context length is {self.max_context_tokens} tokens. "
                f"However, your prompt and max_tokens come to {num_tokens} tokens.",
                param="messages",
            )
        turn_id = TurnId(f"{self._replica_id}/{request.turn_id}")  # unique in the rack
        turn = _ReplicaTurn(
            self._rack, self._replica_id, replace(request, turn_id=turn_id), self._lateness
        )
        try:
            yield turn
        finally:
            turn.abort_unless_finished()

    def now_s(self) -> float:
        """Return the time on the rack's clock."""
        return self._rack.now_s()

    def close_session(self, session_id: SessionId) -> None:
        """Do nothing: vLLM knows no sessions, and evicts what was not used longest."""

    def hint_gap(self, session_id: SessionId, gap: GapHint) -> None:
        """Do nothing."""

    def session_view(self, session_id: SessionId) -> SessionView | None:  # noqa: ARG002 - protocol
        """Know nothing of it."""
        return None


class _ReplicaTurn:
    """A turn on the replica's engine."""

    __slots__ = ("_finished", "_lateness", "_rack", "_replica_id", "_source", "_turn_id")

    def __init__(
        self,
        rack: EmulatedRack,
        replica_id: ReplicaId,
        request: TurnRequest,
        lateness: LatenessMeter,
    ) -> None:
        self._rack, self._replica_id = rack, replica_id
        self._turn_id = request.turn_id
        self._lateness = lateness
        self._finished = False
        self._source = rack.submit(replica_id, request)

    @property
    def placement(self) -> TurnPlacement:
        """Nothing was decided: it runs here."""
        return TurnPlacement(self._replica_id, 0.0, 0, PlacementReason.HOME)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnProgress:
        asked_at = monotonic_s()
        progress = await anext(self._source)
        self._finished = progress.finished
        self._lateness.count(progress, asked_at)
        return progress

    def end_output(self, num_tokens: int) -> None:
        """Let it stop at so many output tokens, or as soon after as it can."""
        self._rack.end_output(self._replica_id, self._turn_id, num_tokens)

    def abort_unless_finished(self) -> None:
        """Stop it where it still runs."""
        if not self._finished:
            self._rack.abort(self._replica_id, self._turn_id)
