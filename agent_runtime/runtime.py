"""Where the scheduler meets a backend: turns in, decisions carried out, tokens out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, Self

import anyio
import anyio.lowlevel

from agent_runtime.backends.backend import Backend
from agent_runtime.clock import Clock
from agent_runtime.errors import ContextTooLongError
from agent_runtime.turns import (
    PlacementReason,
    RunningTurn,
    TurnOutcome,
    TurnPlacement,
    TurnProgress,
    TurnRequest,
)
from hw_model.ttft_boundary import NO_FRONT_END, FrontEnd
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Command, Dispatch, Refuse
from scheduler.errors import InvariantError
from scheduler.events import (
    Event,
    GapHint,
    GapHinted,
    PrefillEnded,
    ReplicaDown,
    ReplicaUp,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.session_view import SessionView


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
        front_end: What turns spend on their way to the engine, in emulated time.
        observer: Told what becomes of turns.
    """

    def __init__(
        self,
        scheduler: ClusterScheduler,
        backend: Backend,
        clock: Clock,
        *,
        block_size_tokens: int,
        front_end: FrontEnd = NO_FRONT_END,
        observer: TurnObserver | None = None,
    ) -> None:
        self._front_end = front_end
        self._observer = observer
        self._scheduler = scheduler
        self._backend = backend
        self._clock = clock
        self._block_size_tokens = block_size_tokens
        self._arrived: dict[TurnId, _ArrivedTurn] = {}
        self._chains: dict[SessionId, Sequence[int]] = {}  # of each session's latest context

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
        if before_engine_s := self._front_end.before_engine_s(request.num_prompt_tokens):
            await anyio.sleep_until(self._clock.deadline(sent_s + before_engine_s))
        arrived = _ArrivedTurn(request, sent_s)
        turn = _DispatchedTurn(request, self._backend, self._progressed)
        try:
            await self._placed(arrived)
            turn.submit(arrived.dispatch, arrived.placement)
            try:
                yield turn
            finally:
                turn.abort_unless_finished()
        finally:
            self._end(turn)

    def close_session(self, session_id: SessionId) -> None:
        """Forget a session: its KV is worth nothing any more. Unknown ids are ignored."""
        self._tell(SessionClosed(session_id))
        self._chains.pop(session_id, None)
        self._backend.session_closed(session_id)

    def replica_changed(self, event: ReplicaDown | ReplicaUp) -> None:
        """Let the scheduler know that a replica went away or came back."""
        self._tell(event)

    def now_s(self) -> float:
        """Return the time on the runtime's clock."""
        return self._clock.now_s()

    def hint_gap(self, session_id: SessionId, gap: GapHint) -> None:
        """Tell more of the tool gap a session is in; not in one, or unknown, nothing happens."""
        self._tell(GapHinted(session_id, gap))

    def session_view(self, session_id: SessionId) -> SessionView | None:
        """Return what the scheduler knows of a session, None if it knows nothing."""
        return self._scheduler.session_view(session_id)

    async def _placed(self, arrived: _ArrivedTurn) -> None:
        """Return once the turn is dispatched.

        Raises:
            ContextTooLongError: It can't be.
        """
        request = arrived.request
        self._chains[request.session_id] = request.block_hashes
        self._arrived[request.turn_id] = arrived
        arrived.home = self._scheduler.home_of(request.session_id)
        arrived.known_s = self._clock.now_s()
        self._tell(
            TurnArrived(
                turn_id=request.turn_id,
                session_id=request.session_id,
                num_prompt_tokens=request.num_prompt_tokens,
                num_output_tokens=request.num_output_tokens,
                parent_id=request.parent_id,
                block_hashes=request.block_hashes,
                priority=request.priority,
                deadline_s=request.deadline_s,
                tenant_id=request.tenant_id,
                avoid=request.avoid,
            )
        )
        await arrived.until_decided()
        refusal = arrived.refusal
        if refusal is not None:
            if self._observer is not None:
                self._observer.turn_refused(request, refusal.num_tokens, arrived.sent_s)
            raise ContextTooLongError(
                f"This model's maximum context length is {refusal.limit_tokens} tokens. However, "
                f"your prompt and max_tokens come to {refusal.num_tokens} tokens.",
                param="messages",
            )

    def _tell(self, event: Event) -> None:
        self._tell_at(event, self._clock.now_s())

    def _tell_at(self, event: Event, now_s: float) -> None:
        """Let the scheduler know, and do what it says."""
        for command in self._scheduler.handle(event, now_s):
            self._carry_out(command, now_s)
        wake_s = self._scheduler.next_wake_s
        if wake_s is not None:
            self._backend.call_at(wake_s, self._wake)

    def _wake(self, now_s: float) -> None:
        self._tell_at(Woken(), now_s)

    def _carry_out(self, command: Command, now_s: float) -> None:
        match command:
            case Dispatch():
                arrived = self._arrived[command.turn_id]
                arrived.dispatch = command
                arrived.placement = _placement(arrived, command, now_s)
                arrived.decide()
                if self._observer is not None:
                    self._observer.turn_dispatched(
                        arrived.request, command.replica_id, arrived.sent_s
                    )
            case Refuse():
                arrived = self._arrived[command.turn_id]
                arrived.refusal = command
                arrived.decide()
            case _:
                hashes = self._chains.get(command.session_id, ())
                self._backend.carry_out(command, hashes, now_s)

    def _progressed(self, turn: _DispatchedTurn, step: TurnProgress) -> None:
        """Pass on what a turn got, at once: whoever reads it may take its time."""
        turn_id = turn.request.turn_id
        if not turn.prefilled and (step.num_new_tokens or step.finished):
            turn.prefilled = True
            in_one_piece = step.finished and step.num_new_tokens > 1 and not turn.request.streams
            self._tell(PrefillEnded(turn_id, step.num_cached_tokens, not in_one_piece))
        if self._observer is not None:
            self._observer.turn_progressed(turn_id, step, self._clock.now_s())
        if step.finished:
            self._end(turn)

    def _end(self, turn: _DispatchedTurn) -> None:
        request = turn.request
        arrived = self._arrived.pop(request.turn_id, None)
        if arrived is None or arrived.refusal is not None:
            return
        num_context_tokens, gap = request.num_prompt_tokens + turn.num_tokens, request.gap
        if turn.outcome is not None:
            num_context_tokens, gap = turn.outcome.num_context_tokens, turn.outcome.gap
        self._tell(TurnEnded(request.turn_id, num_context_tokens, gap, turn.num_tokens))
        if self._observer is not None and arrived.dispatch is not None:
            self._observer.turn_ended(
                request.turn_id,
                self._clock.now_s(),
                num_output_tokens=turn.num_tokens,
                finished=turn.finished,
            )


class _ArrivedTurn:
    """A turn that the scheduler knows of, from its arrival on."""

    __slots__ = (
        "_decided", "dispatch", "home", "known_s", "placement", "refusal", "request",
        "sent_s",
    )  # fmt: skip

    def __init__(self, request: TurnRequest, sent_s: float) -> None:
        self.request = request
        self.sent_s = sent_s
        self._decided: anyio.Event | None = None  # while somebody waits: most are decided at once
        self.dispatch: Dispatch | None = None
        self.refusal: Refuse | None = None
        self.placement: TurnPlacement | None = None
        self.home: ReplicaId | None = None  # of its session, before it
        self.known_s = sent_s  # since when the scheduler knows of it

    def decide(self) -> None:
        """Let who waits know that it is dispatched or refused."""
        if self._decided is not None:
            self._decided.set()

    async def until_decided(self) -> None:
        """Return once it is dispatched or refused."""
        if self.dispatch is None and self.refusal is None:
            self._decided = anyio.Event()
            await self._decided.wait()
        else:
            await anyio.lowlevel.checkpoint_if_cancelled()


def _placement(arrived: _ArrivedTurn, dispatch: Dispatch, now_s: float) -> TurnPlacement:
    if arrived.home is None:
        reason = PlacementReason.NEW
    elif arrived.home == dispatch.replica_id:
        reason = PlacementReason.HOME
    else:
        reason = PlacementReason.MOVED
    return TurnPlacement(
        dispatch.replica_id,
        max(0.0, now_s - arrived.known_s),
        dispatch.num_expected_cached_tokens,
        reason,
    )


class _DispatchedTurn:
    """A turn on its replica: passes its progress on and remembers how far it got.

    Attributes:
        num_tokens: Output tokens so far.
        finished: Whether these are all.
        prefilled: Whether the scheduler knows of the first.
        outcome: What the engine told at the end, if it did.
    """

    __slots__ = (
        "_backend", "_dispatch", "_placement", "_progressed", "_source", "finished",
        "num_tokens", "outcome", "prefilled", "request",
    )  # fmt: skip

    def __init__(
        self,
        request: TurnRequest,
        backend: Backend,
        progressed: Callable[[_DispatchedTurn, TurnProgress], None],
    ) -> None:
        self.request = request
        self._backend = backend
        self._progressed = progressed
        self._dispatch: Dispatch | None = None
        self._placement: TurnPlacement | None = None
        self.num_tokens = 0
        self.finished = False
        self.prefilled = False
        self.outcome: TurnOutcome | None = None

    @property
    def placement(self) -> TurnPlacement:
        """What was decided about it; it is handed out once that is known."""
        if self._placement is None:
            raise InvariantError(f"turn {self.request.turn_id} was not placed yet")
        return self._placement

    def submit(self, dispatch: Dispatch | None, placement: TurnPlacement | None) -> None:
        """Hand it to the backend.

        Raises:
            BackendError: It doesn't take turns.
        """
        if dispatch is None:
            raise InvariantError(f"turn {self.request.turn_id} was neither dispatched nor refused")
        self._dispatch, self._placement = dispatch, placement
        self._source = self._backend.submit(dispatch.replica_id, self.request, dispatch.priority)

    def end_output(self, num_tokens: int) -> None:
        """Let it stop at so many output tokens, or as soon after as it can."""
        if self._dispatch is not None:
            replica_id, turn_id = self._dispatch.replica_id, self._dispatch.turn_id
            self._backend.end_output(replica_id, turn_id, num_tokens)

    def abort_unless_finished(self) -> None:
        """Stop it where it still runs."""
        if not self.finished and self._dispatch is not None:
            self._backend.abort(self._dispatch.replica_id, self._dispatch.turn_id)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnProgress:
        step = await anext(self._source)
        self.num_tokens += step.num_new_tokens
        self.finished = step.finished
        if step.outcome is not None:
            self.outcome = step.outcome
        self._progressed(self, step)
        return step
