"""What ``GET /metrics`` tells of engines: how each is, what its KV holds, what was retried."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from agent_runtime.backends.vllm_servers.circuit_breaker import BreakerState
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet, SlotState
from agent_runtime.backends.vllm_servers.kv_residency import KvResidency
from scheduler.ids import ReplicaId


class FleetMetrics(Collector):
    """A collector of the engines, and a ``RetryCounts``.

    Args:
        fleet: The engines.
        residency: What their KV events add up to.
    """

    def __init__(self, fleet: EngineFleet, residency: KvResidency) -> None:
        self._fleet, self._residency = fleet, residency
        self._num_tried_again = self._num_resumed = 0

    def tried_again(self) -> None:
        """A call was sent to another engine from the beginning."""
        self._num_tried_again += 1

    def resumed(self) -> None:
        """Another engine went on with the half of a reply."""
        self._num_resumed += 1

    def replicas(self) -> list[ReplicaId]:
        """Return the slots that have an engine."""
        return [s.replica_id for s in self._fleet.slots if s.state is not SlotState.EMPTY]

    @override
    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "panjiu_retried_calls",
            "Calls sent to another engine from the beginning.",
            value=self._num_tried_again,
        )
        yield CounterMetricFamily(
            "panjiu_resumed_turns",
            "Replies that broke off and that another engine went on with.",
            value=self._num_resumed,
        )
        state = _gauge("panjiu_engine_state", "1 for the state the engine is in.", "url", "state")
        breaker = _gauge(
            "panjiu_engine_breaker_state", "1 for the state its breaker is in.", "state"
        )
        failures = CounterMetricFamily(
            "panjiu_engine_failures", "Calls and looks that failed.", labels=["replica"]
        )
        turns = _gauge("panjiu_engine_turns", "Turns under way there.")
        events = _gauge("panjiu_engine_kv_events", "Whether its KV events are read.")
        blocks = _gauge("panjiu_engine_known_kv_blocks", "Blocks its events say it has.")
        for replica_id in self.replicas():
            slot, label = self._fleet.slots[replica_id], str(replica_id)
            url = "" if slot.address is None else slot.address.url
            for each in (SlotState.DOWN, SlotState.UP, SlotState.DRAINING):
                state.add_metric([label, url, each.name.lower()], float(slot.state is each))
            for phase in BreakerState:
                is_it = float(slot.breaker.state is phase)
                breaker.add_metric([label, phase.name.lower()], is_it)
            failures.add_metric([label], slot.num_failures)
            turns.add_metric([label], len(slot.turns))
            events.add_metric([label], float(slot.has_events))
            blocks.add_metric([label], self._residency.num_blocks(replica_id))
        yield from (state, breaker, failures, turns, events, blocks)
        known = self._residency.stats()
        yield GaugeMetricFamily(
            "panjiu_resident_sessions",
            "Sessions whose KV is known from events.",
            value=known.num_sessions,
        )


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=["replica", *labels])
