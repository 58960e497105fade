"""The ASGI app before real engines: the routes of the emulated rack, answered by engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from starlette.applications import Starlette

from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.clock import epoch_s
from agent_runtime.gateway.app import (
    EndpointLimits,
    Surroundings,
    application,
    opening_of,
)
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal
from agent_runtime.gateway.journal.response_journal import ResponseJournal
from agent_runtime.gateway.metrics import JournalMetrics, LineMetrics, ProbedFleet, PrometheusCounts
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.relay.chat_apis import ChatApi, CompletionsApi
from agent_runtime.gateway.relay.errand_routes import ErrandRoutes
from agent_runtime.gateway.relay.fleet_metrics import FleetMetrics
from agent_runtime.gateway.relay.kept_responses import (
    KeptResponses,
    RelayedResponse,
    relayed_response,
)
from agent_runtime.gateway.relay.messages_api import MessagesApi
from agent_runtime.gateway.relay.passed_headers import PassedHeaders
from agent_runtime.gateway.relay.relay_opening import RelayOpening
from agent_runtime.gateway.relay.relayed_route import Relay, RelayedResponsesRoute, RelayedRoute
from agent_runtime.gateway.request_limit import RequestLimit
from agent_runtime.gateway.response_store import ResponseStore, StoreLimits
from agent_runtime.gateway.routes import (
    CANCEL_RESPONSE,
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    DELETE_RESPONSE,
    DETOKENIZE,
    GET_RESPONSE,
    MESSAGES,
    RESPONSES,
    TOKENIZE,
    Served,
    common_routes,
)
from agent_runtime.gateway.service_routes import ServiceRoutes
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.gateway.turn_desk import TurnDesk
from agent_runtime.gateway.view_routes import ViewRoutes, view_routes
from agent_runtime.turns import TurnRunner


@dataclass(frozen=True, slots=True)
class RelayTerms:
    """How engines are served.

    Attributes:
        limits: What the endpoint takes on.
        tenants: Whose keys are taken; None lets everybody in, as one tenant.
        own_key: Whether the gateway has a key of its own for the engines; callers' are then kept
            from them, as tenants' always are.
        journal: What outlives the process; None where nothing does.
    """

    limits: EndpointLimits = field(default_factory=EndpointLimits)
    tenants: TenantKeys | None = None
    own_key: bool = False
    journal: GatewayJournal | None = None


def create_relay_app(
    runner: TurnRunner,
    servers: VllmServers,
    terms: RelayTerms,
    view: ViewRoutes | None,
    closing: Closing,
) -> Starlette:
    """Return the endpoint in front of ``runner``, whose turns run on ``servers``.

    Args:
        runner: Runs turns.
        servers: What it runs them on.
        terms: How they are served.
        view: The engines to be watched; None for no such routes.
        closing: By which it can be closed.
    """
    limits, fleet, journal = terms.limits, servers.fleet, terms.journal
    around = Surroundings(tenants=terms.tenants, journal=journal, closing=closing)
    opening = opening_of(runner, Models(fleet.cards), limits, around)
    about_engines = FleetMetrics(fleet, servers.probe.residency)
    probed = ProbedFleet(about_engines.replicas, servers.probe)
    more = [LineMetrics(opening.line), about_engines, JournalMetrics(journal)]
    counts = PrometheusCounts(opening.sessions, probed, more)
    desk = TurnDesk(opening, RequestLimit(limits.max_under_way), counts, limits.hold)
    replicas = frozenset(slot.replica_id for slot in fleet.slots)
    calls = RelayOpening(opening, servers.unready, replicas, servers.probe.counts)
    headers = PassedHeaders(with_keys=not terms.own_key and terms.tenants is None)
    relay = Relay(desk, calls, headers, about_engines)
    kept = KeptResponses(_response_store(limits.responses, fleet, journal), fleet)
    errands = ErrandRoutes(opening, servers.errands, headers, kept)
    served = [
        Served(CHAT, RelayedRoute(ChatApi(), relay).answer),
        Served(MESSAGES, RelayedRoute(MessagesApi(), relay).answer),
        Served(RESPONSES, RelayedResponsesRoute(relay, kept, servers.errands).answer),
        Served(COMPLETIONS, RelayedRoute(CompletionsApi(), relay).answer),
        Served(GET_RESPONSE, errands.get_response),
        Served(DELETE_RESPONSE, errands.delete_response),
        Served(CANCEL_RESPONSE, errands.cancel_response),
        Served(COUNT_TOKENS, errands.of_any),
        Served(TOKENIZE, errands.of_any),
        Served(DETOKENIZE, errands.of_any),
        *common_routes(opening, counts, ServiceRoutes(servers.unready, closing)),
        *(() if view is None else view_routes(view)),
    ]
    return application(served, terms.tenants)


def _response_store(
    limits: StoreLimits, fleet: EngineFleet, journal: GatewayJournal | None
) -> ResponseStore[RelayedResponse]:
    if journal is None:
        return ResponseStore(limits, epoch_s)
    taken_down = ResponseJournal(journal, partial(relayed_response, fleet=fleet), limits.ttl_s)
    return ResponseStore(limits, epoch_s, taken_down)
