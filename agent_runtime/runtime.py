"""Where the scheduler meets a backend: turns in, decisions carried out, tokens out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from agent_runtime.backends.backend import Backend
from agent_runtime.clock import Clock
from agent_runtime.errors import ContextTooLongError
from agent_runtime.turns import TurnProgress, TurnRequest
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch, Refuse
from scheduler.errors import InvariantError
from scheduler.events import SessionClosed, TurnArrived, TurnEnded
from scheduler.ids import SessionId


class Runtime:
    """The ``TurnRunner`` behind the gateway.

    Args:
        scheduler: Decides.
        backend: Runs what it decides.
        clock: Emulated time, the backend's too.
        block_size_tokens: Tokens per KV block.
        max_context_tokens: Longest prompt + output that one replica holds.
    """

    def __init__(
        self,
        scheduler: ClusterScheduler,
        backend: Backend,
        clock: Clock,
        *,
        block_size_tokens: int,
        max_context_tokens: int,
    ) -> None:
        self._scheduler = scheduler
        self._backend = backend
        self._clock = clock
        self._block_size_tokens = block_size_tokens
        self._max_context_tokens = max_context_tokens

    @property
    def block_size_tokens(self) -> int:
        """Tokens per KV block that ``TurnRequest.block_hashes`` count in."""
        return self._block_size_tokens

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt + output that one replica can hold."""
        return self._max_context_tokens

    @asynccontextmanager
    async def open_turn(self, request: TurnRequest) -> AsyncIterator[AsyncIterator[TurnProgress]]:
        """Run a turn; leaving the context before it finished aborts it and frees its KV.

        Raises:
            ContextTooLongError: On entry; prompt + output exceed ``max_context_tokens``.
            BackendError: On entry or while iterating; the turn is over.
        """
        dispatch = self._place(request)
        num_generated_tokens = 0
        try:
            meter = _TokenMeter(self._backend.submit(dispatch.replica_id, request))
            try:
                yield meter
            finally:
                num_generated_tokens = meter.num_tokens
                if not meter.finished:
                    self._backend.abort(dispatch.replica_id, request.turn_id)
        finally:
            num_context_tokens = request.num_prompt_tokens + num_generated_tokens
            ended = TurnEnded(request.turn_id, num_context_tokens)
            self._scheduler.handle(ended, self._clock.now_s())

    def close_session(self, session_id: SessionId) -> None:
        """Forget a session: its KV is worth nothing any more. Unknown ids are ignored."""
        self._scheduler.handle(SessionClosed(session_id), self._clock.now_s())

    def _place(self, request: TurnRequest) -> Dispatch:
        arrived = TurnArrived(
            turn_id=request.turn_id,
            session_id=request.session_id,
            num_prompt_tokens=request.num_prompt_tokens,
            num_output_tokens=request.num_output_tokens,
        )
        for command in self._scheduler.handle(arrived, self._clock.now_s()):
            match command:
                case Dispatch():
                    return command
                case Refuse(num_tokens=num_tokens, limit_tokens=limit):
                    raise ContextTooLongError(
                        f"This model's maximum context length is {limit} tokens. However, your "
                        f"prompt and max_tokens come to {num_tokens} tokens.",
                        param="messages",
                    )
        raise InvariantError(f"turn {request.turn_id} was neither dispatched nor refused")


class _TokenMeter:
    """Passes a turn's progress on and remembers how far it got."""

    __slots__ = ("_source", "finished", "num_tokens")

    def __init__(self, source: AsyncIterator[TurnProgress]) -> None:
        self._source = source
        self.num_tokens = 0
        self.finished = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnProgress:
        step = await anext(self._source)
        self.num_tokens += step.num_new_tokens
        self.finished = step.finished
        return step
