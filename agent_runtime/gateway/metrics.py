"""``GET /metrics``: turns, sessions and replicas, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from agent_runtime.gateway.dialect import DialectName, TurnUsage
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal
from agent_runtime.gateway.process_metrics import ProcessMetrics
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.turn_telemetry import Outcome
from agent_runtime.gateway.waiting_line import WaitingLine
from agent_runtime.turns import TurnPlacement
from scheduler.ids import ReplicaId
from scheduler.rack import ReplicaProbe

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
HOLD_BUCKETS_S = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


@dataclass(frozen=True, slots=True)
class ProbedFleet:
    """Replicas that report of themselves.

    Attributes:
        replicas: Returns the ids of those there are.
        probe: What they report.
    """

    replicas: Callable[[], Iterable[ReplicaId]]
    probe: ReplicaProbe


class PrometheusCounts:
    """A ``TurnCounts`` with a registry of its own.

    Args:
        sessions: Who is talking.
        fleet: What runs turns, or None where nothing reports.
        collectors: Of what else is to be told.
    """

    def __init__(
        self,
        sessions: SessionDirectory,
        fleet: ProbedFleet | None,
        collectors: Sequence[Collector] = (),
    ) -> None:
        registry = self._registry = CollectorRegistry(auto_describe=True)
        self._turns = Counter(
            "panjiu_turns",
            "Requests that ran turns, by the API they came in and how they ended.",
            ["dialect", "outcome"],
            registry=registry,
        )
        self._held = Gauge("panjiu_held_turns", "Requests that wait to run.", registry=registry)
        self._ttft = Histogram(
            "panjiu_time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            buckets=TTFT_BUCKETS_S,
            registry=registry,
        )
        self._hold = Histogram(
            "panjiu_hold_time_seconds",
            "From a turn's arrival at the scheduler to its dispatch.",
            buckets=HOLD_BUCKETS_S,
            registry=registry,
        )
        self._prompt = Counter("panjiu_prompt_tokens", "Of answered requests.", registry=registry)
        self._cached = Counter(
            "panjiu_cached_prompt_tokens",
            "Of those, found in the prefix cache.",
            registry=registry,
        )
        self._output = Counter("panjiu_output_tokens", "Of answered requests.", registry=registry)
        for collector in (_RightNow(sessions, fleet), ProcessMetrics(), *collectors):
            registry.register(collector)

    def turn_arrived(self) -> None:
        """One waits to run."""
        self._held.inc()

    def turn_placed(self, placement: TurnPlacement | None) -> None:
        """It does not wait any more."""
        self._held.dec()
        if placement is not None:
            self._hold.observe(placement.waited_s)

    def first_token(self, ttft_s: float) -> None:
        """Its first token came."""
        self._ttft.observe(ttft_s)

    def request_ended(self, dialect: DialectName, outcome: Outcome, used: TurnUsage | None) -> None:
        """A request is over."""
        self._turns.labels(dialect.value, outcome.value).inc()
        if used is not None:
            self._prompt.inc(used.num_prompt)
            self._cached.inc(used.num_cached)
            self._output.inc(used.num_output)

    async def answer(self, _: Request) -> Response:
        """Answer ``GET /metrics``."""
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE})


class _RightNow(Collector):
    """What is asked when somebody looks."""

    def __init__(self, sessions: SessionDirectory, fleet: ProbedFleet | None) -> None:
        self._sessions, self._fleet = sessions, fleet

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "panjiu_sessions", "Conversations that are known.", value=len(self._sessions)
        )
        running = _by_replica("panjiu_replica_running_requests", "In the replica's batch.")
        waiting = _by_replica("panjiu_replica_waiting_requests", "In the replica's queue.")
        usage = _by_replica("panjiu_replica_kv_usage_ratio", "Share of KV blocks requests hold.")
        if self._fleet is not None:
            probe = self._fleet.probe
            for replica_id in self._fleet.replicas():
                label = [str(replica_id)]
                running.add_metric(label, probe.num_running(replica_id))
                waiting.add_metric(label, probe.num_waiting(replica_id))
                usage.add_metric(label, probe.kv_usage(replica_id))
        yield from (running, waiting, usage)


class LineMetrics(Collector):
    """A collector of the newcomers' line."""

    def __init__(self, line: WaitingLine) -> None:
        self._line = line

    @override
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "panjiu_waiting_newcomers",
            "Sessions whose first turn waits to run.",
            value=self._line.num_waiting,
        )
        yield CounterMetricFamily(
            "panjiu_turned_away",
            "First turns that were to come later, since too many waited.",
            value=self._line.num_refused,
        )


class JournalMetrics(Collector):
    """A collector of the journal's troubles, none where there is no journal."""

    def __init__(self, journal: GatewayJournal | None) -> None:
        self._journal = journal

    @override
    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "panjiu_journal_problems",
            "Writings or readings of the journal that failed, and are tried again.",
            value=0 if self._journal is None else self._journal.records.num_problems,
        )


def _by_replica(name: str, about: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=["replica"])
