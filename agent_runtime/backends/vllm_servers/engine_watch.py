"""Looks after one engine: whether it is well, how loaded it is, and what its KV events say."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from agent_runtime.backends.vllm_servers.engine_facts import EventSource, ask_engine, ask_metrics
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet, EngineSlot, SlotState
from agent_runtime.backends.vllm_servers.engine_http import EngineHttp, EngineUnreachableError
from agent_runtime.backends.vllm_servers.kv_event_lines import OpenEventLines
from agent_runtime.backends.vllm_servers.kv_feed import KvFeed
from agent_runtime.backends.vllm_servers.servers_probe import ServersProbe
from agent_runtime.errors import BackendError
from scheduler.ids import ReplicaId

OK = 200
MOMENTS = 16
"""At which engines are looked at, in a period."""
EVENTS_START_S = 5.0
"""An engine takes turns after so long, though what it published before is not known yet."""


class EngineWatch:
    """The task of one slot with an engine.

    Args:
        slot: Whose.
        fleet: Told how the engine is.
        http: How it is reached.
        probe: Told what its KV holds.
        lines: How its KV events come.
        now_s: The clock.
        poll_s: Between two looks.
    """

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        slot: EngineSlot,
        fleet: EngineFleet,
        http: EngineHttp,
        probe: ServersProbe,
        *,
        lines: OpenEventLines,
        now_s: Callable[[], float],
        poll_s: float,
    ) -> None:
        self._slot = slot
        self._fleet = fleet
        self._http = http
        self._probe = probe
        self._lines = lines
        self._now_s = now_s
        self._poll_s = poll_s
        self._feeding: anyio.CancelScope | None = None
        self._num_answers_seen = 0

    async def run(self, while_down: Callable[[EngineSlot], None]) -> None:
        """Look after the engine until it is out of its slot.

        Args:
            while_down: Called at every look at an engine that takes no turns.
        """
        slot = self._slot
        async with anyio.create_task_group() as tasks:
            while slot.state is not SlotState.EMPTY:
                if slot.state is SlotState.DOWN:
                    self._stop_feed()
                if slot.breaker.may_probe(self._now_s()):
                    await self._look(tasks)
                if slot.state is SlotState.DOWN:
                    while_down(slot)
                self._fleet.leave_if_drained(slot)
                now_s, replica_id = self._now_s(), slot.replica_id
                await anyio.sleep(until_next_look_s(now_s, replica_id, self._poll_s))
            self._stop_feed()

    async def _look(self, tasks: TaskGroup) -> None:
        slot, address = self._slot, self._slot.address
        if address is None:
            return
        answers = slot.num_answers
        has_answered = slot.state is SlotState.UP and answers != self._num_answers_seen
        self._num_answers_seen = answers
        try:
            status = OK  # of an engine that just answered a turn
            if not has_answered:
                status, _ = await self._http.get(f"{address.url}/health")
            if status != OK:
                self._fleet.fail(slot, self._now_s(), f"/health answered {status}")
            elif slot.state is SlotState.DOWN:
                facts = await ask_engine(self._http, address.url)
                slot.breaker.succeeded()
                self._stop_feed()
                events = address.events or facts.events
                if events is not None:
                    await self._start_feed(tasks, events)
                self._fleet.present(slot, facts)
            else:
                slot.metrics = await ask_metrics(self._http, address.url)
                slot.breaker.succeeded()
        except EngineUnreachableError as error:
            self._fleet.fail(slot, self._now_s(), str(error), certain=error.refused)

    async def _start_feed(self, tasks: TaskGroup, source: EventSource) -> None:
        started = anyio.Event()
        self._feeding = anyio.CancelScope()
        tasks.start_soon(self._read_events, source, started, self._feeding)
        with anyio.move_on_after(EVENTS_START_S):
            await started.wait()

    def _stop_feed(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()
            self._feeding = None
            self._slot.has_events = False
        self._probe.replica_lost(self._slot.replica_id)

    async def _read_events(
        self, source: EventSource, started: anyio.Event, scope: anyio.CancelScope
    ) -> None:
        replica, name = self._slot.replica_id, source.endpoint

        def notice(text: str) -> None:
            self._fleet.notice(f"engine {replica}, KV events at {name}: {text}")

        feed = KvFeed(
            self._lines,
            source,
            lambda events: self._probe.residency.apply(replica, events),
            lambda: self._probe.residency.clear(replica),
            notice,
        )

        def reached() -> None:
            self._slot.has_events = True

        feed.on_reached = reached
        with scope:
            try:
                await feed.run(started)
            except BackendError as error:
                self._slot.has_events = False
                started.set()
                notice(f"not used: {error}")


def until_next_look_s(now_s: float, replica_id: ReplicaId, poll_s: float) -> float:
    """Return how long until the next look at an engine; a few at a time have a moment in common.

    A hundred that were looked at together would hold up turns for tens of milliseconds; one by one
    they would cost more.

    Args:
        now_s: On any clock.
        replica_id: Whose moment.
        poll_s: Between two looks.

    Returns:
        Half of ``poll_s`` to one and a half.
    """
    moment_s = replica_id % MOMENTS / MOMENTS * poll_s
    wait_s = (moment_s - now_s) % poll_s
    return wait_s if wait_s > poll_s / 2 else wait_s + poll_s
