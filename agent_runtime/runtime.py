"""Where the scheduler meets a backend: turns in, decisions carried out, tokens out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, Self

import anyio

from agent_runtime.backends.backend import Backend
from agent_runtime.clock import Clock
from agent_runtime.errors import ContextTooLongError
from agent_runtime.turns import RunningTurn, TurnProgress, TurnRequest
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch, Refuse
from scheduler.errors import InvariantError
from scheduler.events import SessionClosed, TurnArrived, TurnEnded
from scheduler.ids import ReplicaId, SessionId, TurnId


class TurnObserver(Protocol):
    """Whom the runtime tells what becomes of turns, e.g. to measure them."""

    def turn_dispatched(self, request: TurnRequest, replica_id: ReplicaId, sent_s: float) -> None:
        """A turn that was sent at ``sent_s`` goes to a replica."""
        ...

    def turn_refused(self, request: TurnRequest, num_tokens: int, sent_s: float) -> None:
        """A turn needs more KV than a replica has."""
        ...

    def turn_progressed(self, turn_id: TurnId, progress: TurnProgress, now_s: float) -> None:
        """Tokens came."""
        ...

    def turn_ended(
        self, turn_id: TurnId, now_s: float, *, num_output_tokens: int, finished: bool
    ) -> None:
        """A turn is over, with so many tokens; one not finished was aborted or failed."""
        ...


class Runtime:
    """The ``TurnRunner`` behind the gateway.

    Args:
        scheduler: Decides.
        backend: Runs what it decides.
        clock: Emulated time, the backend's too.
        block_size_tokens: Tokens per KV block.
        before_engine_s: Emulated seconds that a turn spends on its way to the engine.
        observer: Told what becomes of turns.
    """

    def __init__(
        self,
        scheduler: ClusterScheduler,
        backend: Backend,
        clock: Clock,
        *,
        block_size_tokens: int,
        before_engine_s: float = 0.0,
        observer: TurnObserver | None = None,
    ) -> None:
        self._before_engine_s = before_engine_s
        self._observer = observer
        self._scheduler = scheduler
        self._backend = backend
        self._clock = clock
        self._block_size_tokens = block_size_tokens

    @property
    def block_size_tokens(self) -> int:
        """Tokens per KV block that ``TurnRequest.block_hashes`` count in."""
        return self._block_size_tokens

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt + output that one replica can hold."""
        return self._scheduler.max_context_tokens

    @asynccontextmanager
    async def open_turn(self, request: TurnRequest) -> AsyncIterator[RunningTurn]:
        """Run a turn; leaving the context before it finished aborts it and frees its KV.

        Raises:
            ContextTooLongError: On entry; prompt + output exceed ``max_context_tokens``.
            BackendError: On entry or while iterating; the turn is over.
        """
        sent_s = self._clock.now_s()
        if self._before_engine_s:
            await anyio.sleep_until(self._clock.deadline(sent_s + self._before_engine_s))
        turn = _DispatchedTurn(request, self._place(request, sent_s), self._backend)
        try:
            turn.submit(self._clock, self._observer)
            try:
                yield turn
            finally:
                turn.abort_unless_finished()
        finally:
            self._end(turn)

    def close_session(self, session_id: SessionId) -> None:
        """Forget a session: its KV is worth nothing any more. Unknown ids are ignored."""
        self._scheduler.handle(SessionClosed(session_id), self._clock.now_s())

    def _place(self, request: TurnRequest, sent_s: float) -> Dispatch:
        arrived = TurnArrived(
            turn_id=request.turn_id,
            session_id=request.session_id,
            num_prompt_tokens=request.num_prompt_tokens,
            num_output_tokens=request.num_output_tokens,
        )
        for command in self._scheduler.handle(arrived, self._clock.now_s()):
            match command:
                case Dispatch():
                    if self._observer is not None:
                        self._observer.turn_dispatched(request, command.replica_id, sent_s)
                    return command
                case Refuse(num_tokens=num_tokens, limit_tokens=limit):
                    if self._observer is not None:
                        self._observer.turn_refused(request, num_tokens, sent_s)
                    raise ContextTooLongError(
                        f"This model's maximum context length is {limit} tokens. However, your "
                        f"prompt and max_tokens come to {num_tokens} tokens.",
                        param="messages",
                    )
        raise InvariantError(f"turn {request.turn_id} was neither dispatched nor refused")

    def _end(self, turn: _DispatchedTurn) -> None:
        request, now_s = turn.request, self._clock.now_s()
        num_context_tokens = request.num_prompt_tokens + turn.num_tokens
        self._scheduler.handle(TurnEnded(request.turn_id, num_context_tokens), now_s)
        if self._observer is not None:
            self._observer.turn_ended(
                request.turn_id,
                now_s,
                num_output_tokens=turn.num_tokens,
                finished=turn.finished,
            )


class _DispatchedTurn:
    """A turn on its replica: passes its progress on and remembers how far it got.

    Attributes:
        num_tokens: Output tokens so far.
        finished: Whether these are all.
    """

    __slots__ = (
        "_backend", "_clock", "_dispatch", "_observer", "_source", "finished", "num_tokens",
        "request",
    )  # fmt: skip

    def __init__(self, request: TurnRequest, dispatch: Dispatch, backend: Backend) -> None:
        self.request = request
        self._dispatch = dispatch
        self._backend = backend
        self.num_tokens = 0
        self.finished = False

    def submit(self, clock: Clock, observer: TurnObserver | None) -> None:
        """Hand it to the backend.

        Raises:
            BackendError: It doesn't take turns.
        """
        self._clock, self._observer = clock, observer
        self._source = self._backend.submit(self._dispatch.replica_id, self.request)

    def end_output(self, num_tokens: int) -> None:
        """Let it stop at so many output tokens, or as soon after as it can."""
        replica_id, turn_id = self._dispatch.replica_id, self._dispatch.turn_id
        self._backend.end_output(replica_id, turn_id, num_tokens)

    def abort_unless_finished(self) -> None:
        """Stop it where it still runs."""
        if not self.finished:
            self._backend.abort(self._dispatch.replica_id, self._dispatch.turn_id)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnProgress:
        step = await anext(self._source)
        if self._observer is not None:
            now_s = self._clock.now_s()
            self._observer.turn_progressed(self.request.turn_id, step, now_s)
        self.num_tokens += step.num_new_tokens
        self.finished = step.finished
        return step
