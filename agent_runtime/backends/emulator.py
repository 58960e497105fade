"""The emulated rack in real time: one engine a replica, one task that steps it when it is due."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import anyio

from agent_runtime.clock import Clock
from agent_runtime.errors import BackendStoppedError
from agent_runtime.turns import TurnProgress, TurnRequest
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore, TokensGenerated
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.step_time import StepTimeModel
from scheduler.ids import ReplicaId, TurnId


class _Inbox:
    """Tokens on their way from an engine to whoever reads a turn; steps that came meanwhile merge.

    Invariant: nothing is added after ``finished`` or ``stop``.
    """

    __slots__ = ("_arrived", "_finished", "_num_cached_tokens", "_num_new_tokens", "_stopped")

    def __init__(self) -> None:
        self._arrived = anyio.Event()
        self._num_new_tokens = 0
        self._num_cached_tokens = 0
        self._finished = False
        self._stopped = False

    def add(self, generated: TokensGenerated) -> None:
        self._num_new_tokens += generated.num_tokens
        self._num_cached_tokens = generated.num_cached_tokens
        self._finished = generated.finished
        self._arrived.set()

    def stop(self) -> None:
        self._stopped = True
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnProgress:
        if self._finished and self._num_new_tokens == 0:
            raise StopAsyncIteration
        await self._arrived.wait()
        if self._stopped:
            raise BackendStoppedError
        self._arrived = anyio.Event()
        merged = TurnProgress(self._num_new_tokens, self._num_cached_tokens, self._finished)
        self._num_new_tokens = 0
        return merged


class _Replica:
    """An engine, the readers of its turns, and the event that tells its task to look again."""

    __slots__ = ("engine", "inboxes", "wake")

    def __init__(self, engine: EngineCore) -> None:
        self.engine = engine
        self.inboxes: dict[RequestId, _Inbox] = {}
        self.wake = anyio.Event()

    def advance(self, now_s: float) -> None:
        """Run what is due and hand out the tokens."""
        for generated in self.engine.advance(now_s):
            inbox = self.inboxes.get(generated.request_id)
            if inbox is not None:
                inbox.add(generated)
                if generated.finished:
                    del self.inboxes[generated.request_id]


class EmulatedRack:
    """A ``Backend`` of emulated replicas; ``emulated_rack`` makes one whose replicas run.

    Args:
        deployment: Replicas and KV blocks.
        band: Which machine within what is known.
        clock: Emulated time.
        limits: Batch limits of every engine.
    """

    def __init__(
        self, deployment: Deployment, band: Band, clock: Clock, limits: EngineLimits
    ) -> None:
        self._clock = clock
        self._stopped = False
        step_time = StepTimeModel(deployment, band)
        self._replicas = [
            _Replica(
                EngineCore(
                    KvManager(deployment.kv_blocks, deployment.block_size_tokens),
                    limits,
                    step_time,
                    macro_stepping=False,  # each step's tokens are wanted when they are due
                )
            )
            for _ in range(deployment.num_replicas)
        ]

    async def run(self) -> None:
        """Step every replica when it is due, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for replica in self._replicas:
                tasks.start_soon(self._step_when_due, replica)

    def submit(self, replica_id: ReplicaId, request: TurnRequest) -> AsyncIterator[TurnProgress]:
        """Queue a turn on a replica's engine.

        Raises:
            BackendStoppedError: ``stop`` was called, now or while the turn runs.
        """
        if self._stopped:
            raise BackendStoppedError
        replica, now_s = self._replicas[replica_id], self._clock.now_s()
        replica.advance(now_s)
        request_id = RequestId(request.turn_id)
        replica.engine.add(
            EngineRequest(
                request_id,
                request.num_prompt_tokens,
                request.num_output_tokens,
                request.block_hashes,
            ),
            now_s,
        )
        inbox = replica.inboxes[request_id] = _Inbox()
        replica.wake.set()
        return inbox

    def abort(self, replica_id: ReplicaId, turn_id: TurnId) -> None:
        """Drop a turn; its blocks are free from the end of the step under way."""
        replica, now_s = self._replicas[replica_id], self._clock.now_s()
        replica.advance(now_s)
        replica.inboxes.pop(RequestId(turn_id), None)
        replica.engine.abort(RequestId(turn_id), now_s)
        replica.wake.set()

    def stop(self) -> None:
        """End all turns, and refuse new ones, with ``BackendStoppedError``."""
        self._stopped = True
        for replica in self._replicas:
            for inbox in replica.inboxes.values():
                inbox.stop()

    def check_invariants(self) -> None:
        """Raise if an engine contradicts itself. O(blocks).

        Raises:
            InvariantError: Names the invariant.
        """
        for replica in self._replicas:
            replica.engine.check_invariants()

    def kv_active_ratio(self) -> float:
        """Return the mean share of KV blocks that turns hold."""
        return sum(r.engine.kv_active_ratio for r in self._replicas) / len(self._replicas)

    async def _step_when_due(self, replica: _Replica) -> None:
        while True:
            next_s = replica.engine.next_event_s
            deadline = float("inf") if next_s is None else self._clock.deadline(next_s)
            with anyio.move_on_after(deadline - anyio.current_time()):
                await replica.wake.wait()
            replica.wake = anyio.Event()
            replica.advance(self._clock.now_s())


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
