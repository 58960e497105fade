"""The emulated rack with everything in front of it: scheduler, runtime, endpoint, measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.backends.emulator import EmulatedRack
from agent_runtime.backends.engine_probe import EngineProbe
from agent_runtime.clock import Clock
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.errors import BackendStoppedError
from agent_runtime.gateway.app import EndpointLimits, Surroundings, create_app
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.dashboard import DashboardTerms, open_dashboard
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal
from agent_runtime.gateway.metrics import ProbedFleet
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.gateway.view_routes import ViewRoutes
from agent_runtime.measurement.decision_listeners import all_of
from agent_runtime.measurement.live_run import LiveRun
from agent_runtime.measurement.summary import RunLabels
from agent_runtime.measurement.turn_meter import TurnMeter
from agent_runtime.rack_view.gauges import EngineGauges
from agent_runtime.rack_view.layouts import emulated_layout
from agent_runtime.runtime import Runtime
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.request_queue import SchedulingPolicy
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.ttft_boundary import FrontEnd, TtftBoundary
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.cost import TabulatedCost
from scheduler.decision import Decision
from scheduler.ids import ReplicaId
from scheduler.policies import make_policy, policy_entry
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How the rack is emulated and served.

    Attributes:
        band: Which machine within what is known.
        policy: Name of the placement policy.
        limits: Batch limits of every engine.
        ttft_boundary: On the client's clock, turns spend on their way to the engine what they would
            before a real one (HTTP, tokenising); on the engine's, nothing.
        endpoint: What the endpoint takes on.
        any_model_name: Whether the model answers to every name.
        tenants: Whose API keys are taken; None lets everybody in.
        dashboard: Who may watch the rack; None for no dashboard.
        measured: Whether to keep what a report needs: every turn's times, every session's blocks.
        seed: Of the run, as a report names it.
        journal: What of the endpoint outlives the process; None where nothing does.
    """

    band: Band
    policy: str
    limits: EngineLimits
    ttft_boundary: TtftBoundary = TtftBoundary.ENGINE
    endpoint: EndpointLimits = field(default_factory=EndpointLimits)
    any_model_name: bool = False
    tenants: TenantKeys | None = None
    dashboard: DashboardTerms | None = None
    measured: bool = False
    seed: int = 0
    journal: GatewayJournal | None = None


class EmulatedService:
    """One emulated rack, served.

    It has no tasks: open ``rack.run`` in a task group, or make the rack a loop's ``world``.

    Args:
        deployment: What is emulated, laid out for ``options.band``.
        options: How.
        clock: Emulated time.
        speaker: Says what is answered: an emulated model, or a real server.
        epoch_s: Seconds since 1970, for timestamps that clients see.
        on_decision: Told of every decision of the scheduler.

    Attributes:
        live_run: What is measured; None unless ``options.measured``.
        dashboard: The routes to its view; None without one.
        closing: By which the endpoint can be closed.
    """

    def __init__(
        self,
        deployment: Deployment,
        options: ServiceOptions,
        clock: Clock,
        speaker: EmulatedModel | ChatUpstream,
        *,
        epoch_s: Callable[[], float],
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        limits = options.limits
        if policy_entry(options.policy).uses_priorities:
            limits = replace(limits, policy=SchedulingPolicy.PRIORITY)
        self.rack = EmulatedRack(deployment, options.band, clock, limits)
        self.closing = Closing()
        self.dashboard = _dashboard(deployment, options, self.rack, clock)
        setup = _policy_setup(deployment, options)
        probe = EngineProbe(self.rack.engines)
        self.scheduler = ClusterScheduler(
            setup.fleet,
            make_policy(options.policy, setup),
            all_of(None if self.dashboard is None else self.dashboard.view.take, on_decision),
            probe,
        )
        if self.dashboard is not None and on_decision is None:
            self.dashboard.view.explain_while_watched(self.scheduler)
        front_end = options.ttft_boundary.front_end(deployment.chip, options.band)
        self.live_run = (
            _live_run(deployment, options, self.rack, front_end) if options.measured else None
        )
        self.runtime = Runtime(
            self.scheduler,
            self.rack,
            clock,
            block_size_tokens=deployment.block_size_tokens,
            front_end=front_end,
            observer=self.live_run,
        )
        replicas = [ReplicaId(number) for number in range(deployment.num_replicas)]
        self.app = create_app(
            self.runtime,
            model=deployment.model.name,
            speaker=speaker,
            limits=options.endpoint,
            any_model_name=options.any_model_name,
            surroundings=Surroundings(
                epoch_s,
                ProbedFleet(lambda: replicas, probe),
                unready=lambda: None if self.rack.takes_turns else BackendStoppedError(),
                tenants=options.tenants,
                view=self.dashboard,
                journal=options.journal,
                closing=self.closing,
            ),
        )

    def stop(self) -> None:
        """End all turns, and let those who watch go."""
        self.closing.cut()
        self.rack.stop()
        if self.dashboard is not None:
            self.dashboard.end.end()


def _policy_setup(deployment: Deployment, options: ServiceOptions) -> PolicySetup:
    step_tokens = options.limits.max_num_batched_tokens
    fleet = ReplicaFleet(
        deployment.num_replicas, deployment.kv_tokens, deployment.block_size_tokens, step_tokens
    )
    return PolicySetup(fleet, TabulatedCost.of(deployment, options.band, step_tokens), options.seed)


def _dashboard(
    deployment: Deployment, options: ServiceOptions, rack: EmulatedRack, clock: Clock
) -> ViewRoutes | None:
    if options.dashboard is None:
        return None
    layout = emulated_layout(
        deployment, band=options.band, policy=options.policy, speed=clock.speed
    )
    gauges = EngineGauges(rack.engines)
    return open_dashboard(options.dashboard, lambda: layout, gauges, clock, options.tenants)


def _live_run(
    deployment: Deployment, options: ServiceOptions, rack: EmulatedRack, front_end: FrontEnd
) -> LiveRun:
    labels = RunLabels(
        policy=options.policy,
        band=options.band.value,
        seed=options.seed,
        ttft_boundary=options.ttft_boundary.value,
    )
    meter = TurnMeter(
        rack.step_time,
        block_size_tokens=deployment.block_size_tokens,
        max_num_batched_tokens=options.limits.max_num_batched_tokens,
        num_replicas=deployment.num_replicas,
        front_end=front_end,
    )
    return LiveRun(labels, deployment, rack.engines, meter)
