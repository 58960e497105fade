"""Real engines with everything in front of them: scheduler, runtime, endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from starlette.applications import Starlette

from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.clock import Clock
from agent_runtime.errors import ConfigError
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.dashboard import DashboardTerms, open_dashboard
from agent_runtime.gateway.relay.relay_app import RelayTerms, create_relay_app
from agent_runtime.gateway.view_routes import ViewRoutes
from agent_runtime.measurement.decision_listeners import all_of
from agent_runtime.rack_view.gauges import FleetGauges
from agent_runtime.rack_view.layouts import fleet_layout
from agent_runtime.runtime import Runtime
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.cost import CostModel
from scheduler.decision import Decision
from scheduler.events import ReplicaDown, ReplicaUp
from scheduler.measured_cost import MeasuredCost
from scheduler.policies import make_policy
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup

DEFAULT_BLOCK_TOKENS = 16
"""vLLM's own, for engines that don't say."""


@dataclass(frozen=True, slots=True)
class EngineCapabilities:
    """What engines can be told to do with KV, and what they tell of it.

    Attributes:
        retains, pulls, prefetches: On command; stock vLLM does none of them.
        has_events: Whether all that are up tell what their KV holds.
        looks_at_priorities: What vLLM does if started with ``--scheduling-policy priority``; it
            does not say whether it was.
    """

    retains: bool = False
    pulls: bool = False
    prefetches: bool = False
    has_events: bool = False
    looks_at_priorities: bool | None = None

    def describe(self) -> str:
        """Return that in a line."""
        can = [name for name in ("retains", "pulls", "prefetches") if getattr(self, name)]
        kept = ", ".join(can) or "none of retain, pull, prefetch (stock vLLM can't)"
        events = "read" if self.has_events else "not from all engines: what was sent counts instead"
        return f"KV commands: {kept}; KV events: {events}"


@dataclass(frozen=True, slots=True)
class EngineServiceOptions:
    """How engines are used.

    Attributes:
        policy: Name of the scheduling policy.
        kv_tokens: What the KV of one engine holds, where they don't say.
        max_num_batched_tokens: New tokens in one step of an engine.
        endpoint: What the endpoint takes on.
        own_key: Whether the gateway has a key of its own for the engines.
        seed: Of what the policy draws at random.
        dashboard: Who may watch the engines; None for no dashboard.
    """

    policy: str
    kv_tokens: int | None = None
    max_num_batched_tokens: int = 8192
    relay: RelayTerms = field(default_factory=RelayTerms)
    seed: int = 0
    dashboard: DashboardTerms | None = None


class EngineService:
    """Engines, served. Make it once one of them is up: the first ones tell what a replica holds.

    Args:
        servers: The engines; somebody runs ``servers.run``.
        options: How they are used.
        clock: Real time.
        cost: What work costs on them; by default it is learned from their turns.
        on_decision: Told of every decision of the scheduler.

    Attributes:
        dashboard: The routes to its view; None without one.
        closing: By which the endpoint can be closed.
    """

    def __init__(
        self,
        servers: VllmServers,
        options: EngineServiceOptions,
        clock: Clock,
        *,
        cost: CostModel | None = None,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        self._servers = servers
        fleet = servers.fleet
        kv_tokens, block_size = replica_kv(fleet, options.kv_tokens)
        if cost is None:
            cost = servers.cost = MeasuredCost()
        setup = PolicySetup(
            ReplicaFleet(
                len(fleet.slots),
                kv_tokens,
                block_size,
                options.max_num_batched_tokens,
                retains_kv=False,
            ),
            cost,
            options.seed,
        )
        servers.probe.block_size_tokens = block_size
        self.closing = Closing()
        self.dashboard = _dashboard(servers, options, kv_tokens, clock)
        self.scheduler = ClusterScheduler(
            setup.fleet,
            make_policy(options.policy, setup),
            all_of(None if self.dashboard is None else self.dashboard.view.take, on_decision),
            servers.probe,
        )
        if self.dashboard is not None and on_decision is None:
            self.dashboard.view.explain_while_watched(self.scheduler)
        self.runtime = Runtime(self.scheduler, servers, clock, block_size_tokens=block_size)
        up = {slot.replica_id for slot in fleet.up()}
        for slot in fleet.slots:
            if slot.replica_id not in up:
                self.runtime.replica_changed(ReplicaDown(slot.replica_id))
        self._kv_tokens = kv_tokens
        fleet.on_change = self._replica_changed
        self.app: Starlette = create_relay_app(
            self.runtime, servers, options.relay, self.dashboard, self.closing
        )

    def stop(self) -> None:
        """End all turns, and let those who watch go."""
        self.closing.cut()
        self._servers.stop()
        if self.dashboard is not None:
            self.dashboard.end.end()

    def _replica_changed(self, event: ReplicaDown | ReplicaUp) -> None:
        fleet = self._servers.fleet
        told = fleet.slots[event.replica_id].metrics.kv_tokens
        if isinstance(event, ReplicaUp) and told is not None and told < self._kv_tokens:
            fleet.notice(
                f"engine {event.replica_id} has less KV than is planned with, {told:,} tokens and "
                f"not {self._kv_tokens:,}: restart the gateway while it is up"
            )
        self.runtime.replica_changed(event)

    def capabilities(self) -> EngineCapabilities:
        """Return what the engines that are up can do."""
        up = self._servers.fleet.up()
        return EngineCapabilities(has_events=bool(up) and all(slot.has_events for slot in up))


def _dashboard(
    servers: VllmServers, options: EngineServiceOptions, kv_tokens: int, clock: Clock
) -> ViewRoutes | None:
    if options.dashboard is None:
        return None
    fleet = servers.fleet
    layout = partial(fleet_layout, fleet, policy=options.policy, kv_tokens=kv_tokens)
    gauges = FleetGauges(fleet, servers.probe)
    return open_dashboard(options.dashboard, layout, gauges, clock, options.relay.tenants)


def replica_kv(fleet: EngineFleet, kv_tokens: int | None) -> tuple[int, int]:
    """Return what one replica's KV holds and the tokens of a block; the least that any engine has.

    Args:
        fleet: With an engine up.
        kv_tokens: What the user says; engines are believed rather than this.

    Raises:
        ConfigError: Neither says.
    """
    told = [slot.metrics for slot in fleet.up()]
    sizes = [metrics.kv_tokens for metrics in told if metrics.kv_tokens is not None]
    blocks = [m.block_size_tokens for m in told if m.block_size_tokens is not None]
    if not sizes and kv_tokens is None:
        raise ConfigError(
            "the engines don't say how many tokens their KV holds (vllm:cache_config_info at "
            "/metrics): give it by --kv-tokens"
        )
    return min(sizes) if sizes else kv_tokens or 0, min(blocks, default=DEFAULT_BLOCK_TOKENS)
