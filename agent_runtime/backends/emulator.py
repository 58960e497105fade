"""The emulated rack: one engine a replica, stepped when it is due."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, Self

import anyio

from agent_runtime.backends.kv_orders import carry_out
from agent_runtime.clock import Clock
from agent_runtime.errors import BackendStoppedError
from agent_runtime.turns import TurnProgress, TurnRequest
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore, TokensGenerated
from hw_model.engine.kv_events import KvEventLog
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.step_time import StepTimeModel
from scheduler.commands import KvCommand
from scheduler.ids import ReplicaId, SessionId, TurnId


class _Inbox:
    """Tokens on their way from an engine to whoever reads a turn; steps that came meanwhile merge.

    Invariant: nothing is added after ``finished`` or ``stop``.
    """

    __slots__ = (
        "_arrived",
        "_due_s",
        "_finished",
        "_num_cached_tokens",
        "_num_new_tokens",
        "_stopped",
        "request",
    )

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self._arrived: anyio.Event | None = None  # while somebody waits
        self._due_s = 0.0
        self._num_new_tokens = 0
        self._num_cached_tokens = 0
        self._finished = False
        self._stopped = False

    def add(self, generated: TokensGenerated) -> None:
        if self._num_new_tokens == 0:
            self._due_s = generated.at_s
        self._num_new_tokens += generated.num_tokens
        self._num_cached_tokens = generated.num_cached_tokens
        self._finished = generated.finished
        if self._arrived is not None:
            self._arrived.set()

    def stop(self) -> None:
        self._stopped = True
        if self._arrived is not None:
            self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnProgress:
        if self._num_new_tokens == 0 and not self._stopped:
            if self._finished:
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()
            self._arrived = None
        if self._stopped:
            raise BackendStoppedError
        merged = TurnProgress(
            self._num_new_tokens, self._num_cached_tokens, self._finished, self._due_s
        )
        self._num_new_tokens = 0
        return merged


class ReplicaObserver(Protocol):
    """Whom the rack tells what one replica's engine does."""

    def submitted(self, request: TurnRequest, engine_request: EngineRequest, now_s: float) -> None:
        """A turn was queued."""
        ...

    def stepped(self, at_s: float, generated: Sequence[TokensGenerated]) -> None:
        """Steps ended, the last of them at ``at_s``, and the next one, if any, was planned."""
        ...

    def aborted(self, engine_request: EngineRequest, now_s: float) -> None:
        """A turn that had not finished was dropped."""
        ...


class EmulatedRack:
    """A ``Backend`` of emulated replicas.

    Somebody must step them: ``emulated_rack`` does in a task, in real or virtual time; a
    ``VirtualTimeLoop`` does between its timers when the rack is its ``world``.

    Args:
        deployment: Replicas and KV blocks.
        band: Which machine within what is known.
        clock: Emulated time.
        limits: Batch limits of every engine.
        observers: Told what each replica does, one a replica; none by default.
        kv_logs: Where each replica's KV events go, one a replica; nowhere by default.

    Invariant: for every engine with something to do, ``_due`` holds an entry with its
        ``next_event_s``, which is ``_scheduled_s``; entries that differ from it are stale.
    """

    def __init__(
        self,
        deployment: Deployment,
        band: Band,
        clock: Clock,
        limits: EngineLimits,
        *,
        observers: Sequence[ReplicaObserver] = (),
        kv_logs: Sequence[KvEventLog] = (),
    ) -> None:
        self._clock = clock
        self._observers = observers
        self._stopped = False
        self.step_time = StepTimeModel(deployment, band)
        self.engines = [
            EngineCore(
                KvManager(deployment.kv_blocks, deployment.block_size_tokens, log=log),
                limits,
                self.step_time,
                progress=bool(observers),
            )
            for log in kv_logs or (None,) * deployment.num_replicas
        ]
        self._inboxes: dict[RequestId, _Inbox] = {}
        self._due: list[tuple[float, int, int]] = []  # when, order, replica
        self._orders = itertools.count()
        self._scheduled_s: list[float | None] = [None] * deployment.num_replicas
        self._wake = anyio.Event()
        self._alarm: tuple[float, Callable[[float], None]] | None = None

    @property
    def next_event_s(self) -> float | None:
        """When a replica, or a call back, is next due, in emulated time; None while none is."""
        due_s, alarm = self._next_due_s, self._alarm
        return due_s if alarm is None or (due_s is not None and due_s < alarm[0]) else alarm[0]

    @property
    def _next_due_s(self) -> float | None:
        due = self._due
        while due and self._scheduled_s[due[0][2]] != due[0][0]:
            heapq.heappop(due)
        return due[0][0] if due else None

    def now_s(self) -> float:
        """Return the time on the rack's clock."""
        return self._clock.now_s()

    def advance(self, now_s: float) -> None:
        """Call back if it is time, step every replica that is due and hand out the tokens."""
        while (next_s := self.next_event_s) is not None and next_s <= now_s:
            alarm = self._alarm
            if alarm is not None and alarm[0] == next_s:
                self._alarm = None
                alarm[1](now_s)
            else:
                self._step(heapq.heappop(self._due)[2], now_s)

    def call_at(self, at_s: float, wake: Callable[[float], None]) -> None:
        """Call back at an emulated time, with the time; instead of what was asked for before."""
        self._alarm = at_s, wake
        self._wake.set()

    def carry_out(self, command: KvCommand, block_hashes: Sequence[int], now_s: float) -> None:
        """Keep, move or give up KV of a session whose latest context has these hashes."""
        self._catch_up(command.replica_id, now_s)
        carry_out(command, block_hashes, self.engines, now_s)
        self._reschedule(command.replica_id)

    def session_closed(self, session_id: SessionId) -> None:
        """Nothing: the scheduler has its KV released by commands."""

    async def run(self) -> None:
        """Step every replica when it is due, until cancelled."""
        while True:
            next_s = self.next_event_s
            deadline = float("inf") if next_s is None else self._clock.deadline(next_s)
            with anyio.move_on_after(deadline - anyio.current_time()):
                await self._wake.wait()
            self.advance(self._clock.now_s())
            self._wake = anyio.Event()  # what has just been set needs no other look

    def submit(
        self, replica_id: ReplicaId, request: TurnRequest, priority: int = 0
    ) -> AsyncIterator[TurnProgress]:
        """Queue a turn on a replica's engine.

        Raises:
            BackendStoppedError: ``stop`` was called, now or while the turn runs.
        """
        if self._stopped:
            raise BackendStoppedError
        now_s = self._clock.now_s()
        self._catch_up(replica_id, now_s)
        engine_request = EngineRequest(
            RequestId(request.turn_id),
            request.num_prompt_tokens,
            request.num_output_tokens,
            request.block_hashes,
            priority,
            streams=request.streams,
        )
        self.engines[replica_id].add(engine_request, now_s)
        inbox = self._inboxes[engine_request.request_id] = _Inbox(engine_request)
        if self._observers:
            self._observers[replica_id].submitted(request, engine_request, now_s)
        self._reschedule(replica_id)
        return inbox

    def end_output(self, replica_id: ReplicaId, turn_id: TurnId, num_tokens: int) -> None:
        """Let a turn stop at so many output tokens, or with the step under way."""
        now_s = self._clock.now_s()
        self._catch_up(replica_id, now_s)
        inbox = self._inboxes.get(RequestId(turn_id))
        if inbox is not None:
            self.engines[replica_id].end_output(inbox.request, num_tokens, now_s)
            self._reschedule(replica_id)

    def abort(self, replica_id: ReplicaId, turn_id: TurnId) -> None:
        """Drop a turn; its blocks are free from the end of the step under way."""
        now_s = self._clock.now_s()
        self._catch_up(replica_id, now_s)
        inbox = self._inboxes.pop(RequestId(turn_id), None)
        self.engines[replica_id].abort(RequestId(turn_id), now_s)
        if self._observers and inbox is not None:
            self._observers[replica_id].aborted(inbox.request, now_s)
        self._reschedule(replica_id)

    @property
    def takes_turns(self) -> bool:
        """Whether it does: until it is stopped."""
        return not self._stopped

    def stop(self) -> None:
        """End all turns, and refuse new ones, with ``BackendStoppedError``."""
        self._stopped = True
        for inbox in self._inboxes.values():
            inbox.stop()

    def check_invariants(self) -> None:
        """Raise if an engine contradicts itself. O(blocks).

        Raises:
            InvariantError: Names the invariant.
        """
        for engine in self.engines:
            engine.check_invariants()

    def kv_active_ratio(self) -> float:
        """Return the mean share of KV blocks that turns hold."""
        return sum(engine.kv_active_ratio for engine in self.engines) / len(self.engines)

    def _catch_up(self, replica: int, now_s: float) -> None:
        """Run the steps that ended before now; one that ends now is still to come."""
        next_s = self._scheduled_s[replica]
        if next_s is not None and next_s < now_s:
            self._step(replica, now_s)

    def _step(self, replica: int, now_s: float) -> None:
        tokens = self.engines[replica].advance(now_s)
        if self._observers:
            due_s = self._scheduled_s[replica]
            at_s = tokens[-1].at_s if tokens else now_s if due_s is None else due_s
            self._observers[replica].stepped(at_s, tokens)
        for generated in tokens:
            inbox = self._inboxes.get(generated.request_id)
            if inbox is not None:
                inbox.add(generated)
                if generated.finished:
                    del self._inboxes[generated.request_id]
        self._scheduled_s[replica] = None
        self._reschedule(replica)

    def _reschedule(self, replica: int) -> None:
        next_s = self.engines[replica].next_event_s
        if next_s != self._scheduled_s[replica]:
            self._scheduled_s[replica] = next_s
            if next_s is not None:
                heapq.heappush(self._due, (next_s, next(self._orders), replica))
                self._wake.set()


@asynccontextmanager
async def emulated_rack(
    deployment: Deployment, band: Band, clock: Clock, limits: EngineLimits
) -> AsyncIterator[EmulatedRack]:
    """Open an emulated rack; it runs until the context is left."""
    rack = EmulatedRack(deployment, band, clock, limits)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rack.run)
        yield rack
        tasks.cancel_scope.cancel()
