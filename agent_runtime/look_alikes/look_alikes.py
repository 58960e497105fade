"""A process' share of the rack: engines stepped together, each behind an app of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_runtime.backends.emulator import EmulatedRack, ReplicaObserver
from agent_runtime.clock import Clock
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.errors import RequestError
from agent_runtime.gateway.app import EndpointLimits, Surroundings, create_app
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.look_alikes.engine_meter import EngineMeter
from agent_runtime.look_alikes.kv_event_feed import BatchPublisher, KvEventFeed
from agent_runtime.look_alikes.lateness import LatenessMeter, LatenessSummary
from agent_runtime.look_alikes.replica_runner import ReplicaRunner
from agent_runtime.look_alikes.vllm_metrics import vllm_metrics
from agent_runtime.look_alikes.vllm_routes import VllmRoutes, on_http_exception, on_request_error
from agent_runtime.turns import TurnRequest
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import TokensGenerated
from hw_model.engine.kv_events import KvEventLog
from hw_model.engine.request import EngineRequest
from hw_model.engine.step_scheduler import EngineLimits
from scheduler.ids import ReplicaId

REQUEST_ID = b"x-request-id"


@dataclass(frozen=True, slots=True)
class LookAlikeOptions:
    """How engines are emulated and served.

    Attributes:
        band: Which machine within what is known.
        limits: Batch limits of every engine.
        endpoint: What each takes on; ``max_sessions`` counts for all of them.
    """

    band: Band
    limits: EngineLimits
    endpoint: EndpointLimits


class LookAlikes:
    """Look-alikes of vLLM over one ``EmulatedRack``; open ``rack.run`` in a task group.

    They share the memory of who said what, so a conversation is tokenised and hashed once,
    whichever of them a router sends its turns to.

    Args:
        deployment: What is emulated: as many replicas as there shall be here.
        options: How.
        clock: Emulated time.
        speaker: Says what is answered.
        publishers: Of KV events, one a replica; nobody is told of them by default.
        epoch_s: Seconds since 1970, for timestamps that clients see.

    Attributes:
        rack: The engines.
        apps: Their endpoints, in order.
    """

    def __init__(
        self,
        deployment: Deployment,
        options: LookAlikeOptions,
        clock: Clock,
        speaker: EmulatedModel,
        *,
        publishers: Sequence[BatchPublisher] = (),
        epoch_s: Callable[[], float],
    ) -> None:
        numbers = range(deployment.num_replicas)
        logs = [KvEventLog() for _ in publishers]
        self._meters = [EngineMeter(deployment.kv_tokens) for _ in numbers]
        self._lateness = [LatenessMeter(clock) for _ in numbers]
        observers: list[ReplicaObserver] = list(self._meters)
        if publishers:
            observers = [
                _Both(
                    meter,
                    KvEventFeed(
                        log,
                        publisher,
                        block_size_tokens=deployment.block_size_tokens,
                        epoch_s=epoch_s,
                    ),
                )
                for meter, log, publisher in zip(self._meters, logs, publishers, strict=True)
            ]
        self.rack = EmulatedRack(
            deployment, options.band, clock, options.limits, observers=observers, kv_logs=logs
        )
        sessions = SessionDirectory(
            deployment.block_size_tokens, max_sessions=options.endpoint.max_sessions
        )
        shared = _Shared(deployment, options, speaker, sessions, epoch_s)
        self.apps = [
            self._app(number, shared, publishers[number] if publishers else None)
            for number in numbers
        ]

    def lateness(self) -> LatenessSummary:
        """Return how late tokens were handed on so far, by all replicas."""
        return LatenessSummary.of([meter.histogram.counts for meter in self._lateness])

    def _app(self, number: int, shared: _Shared, publisher: BatchPublisher | None) -> Starlette:
        deployment, epoch_s = shared.deployment, shared.epoch_s
        engine, model = self.rack.engines[number], deployment.model.name
        lateness = self._lateness[number]
        runner = ReplicaRunner(
            self.rack,
            ReplicaId(number),
            block_size_tokens=deployment.block_size_tokens,
            lateness=lateness,
        )
        app = create_app(
            runner,
            model=model,
            speaker=shared.speaker,
            limits=shared.options.endpoint,
            sessions=shared.sessions,
            surroundings=Surroundings(epoch_s=epoch_s),
        )
        metrics = vllm_metrics(model, deployment, engine, self._meters[number], lateness)
        own = VllmRoutes(model, int(epoch_s()), engine, metrics, publisher)
        app.router.routes[:0] = own.routes()  # the first that fits answers
        app.exception_handlers[RequestError] = on_request_error
        app.exception_handlers[HTTPException] = on_http_exception
        return app


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all apps have in common."""

    deployment: Deployment
    options: LookAlikeOptions
    speaker: EmulatedModel
    sessions: SessionDirectory
    epoch_s: Callable[[], float]


class AppsByPort:
    """One ASGI app of many, told apart by the port that a connection came to.

    Requests without an id get one that is unique among all replicas, as vLLM's are: whoever stands
    in front may tell answers apart by theirs.
    """

    def __init__(self, apps: Mapping[int, ASGIApp]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = scope["headers"]
        if not any(name == REQUEST_ID for name, _ in headers):
            scope = {**scope, "headers": [*headers, (REQUEST_ID, uuid4().hex.encode())]}
        await self._apps[scope["server"][1]](scope, receive, send)


class _Both:
    """A ``ReplicaObserver`` that is two."""

    __slots__ = ("_feed", "_meter")

    def __init__(self, meter: EngineMeter, feed: KvEventFeed) -> None:
        self._meter, self._feed = meter, feed

    def submitted(self, request: TurnRequest, engine_request: EngineRequest, now_s: float) -> None:
        self._meter.submitted(request, engine_request, now_s)
        self._feed.submitted(request, engine_request, now_s)

    def stepped(self, at_s: float, generated: Sequence[TokensGenerated]) -> None:
        self._meter.stepped(at_s, generated)
        self._feed.stepped(at_s, generated)

    def aborted(self, engine_request: EngineRequest, now_s: float) -> None:
        self._meter.aborted(engine_request, now_s)
        self._feed.aborted(engine_request, now_s)


def shares(deployment: Deployment, num_processes: int) -> list[tuple[int, Deployment]]:
    """Divide a rack among processes: for each the number of its first replica, and its part."""
    parts = []
    first = 0
    for process in range(num_processes):
        count = (deployment.num_replicas - first) // (num_processes - process)
        parts.append((first, replace(deployment, num_replicas=count)))
        first += count
    return parts
