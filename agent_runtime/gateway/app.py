"""The ASGI app: routes and what they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.clock import epoch_s
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.answering import AnswerDesk
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.error_mapping import (
    on_disconnect,
    on_http_exception,
    on_runtime_error,
    on_unexpected,
)
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal
from agent_runtime.gateway.journal.response_journal import ResponseJournal, stored_response
from agent_runtime.gateway.journal.session_journal import SessionJournal
from agent_runtime.gateway.metrics import JournalMetrics, LineMetrics, ProbedFleet, PrometheusCounts
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.paced_completions import PacedCompletions
from agent_runtime.gateway.planned_turn import TurnPlanner
from agent_runtime.gateway.request_id import RequestIds
from agent_runtime.gateway.request_limit import RequestLimit
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse, StoreLimits
from agent_runtime.gateway.routes import (
    Served,
    chat_route,
    common_routes,
    dialect_routes,
    starlette_routes,
)
from agent_runtime.gateway.service_routes import ServiceRoutes
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.tenants import Authentication, TenantKeys
from agent_runtime.gateway.turn_desk import TurnDesk
from agent_runtime.gateway.turn_stream import HoldTerms
from agent_runtime.gateway.view_routes import ViewRoutes, view_routes
from agent_runtime.gateway.waiting_line import WaitingLine
from agent_runtime.turns import TurnRunner


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What the endpoint takes on.

    Attributes:
        max_body_bytes: Larger bodies get a 413.
        max_sessions: How many conversations it knows at a time, see ``SessionDirectory``.
        max_under_way: Requests at a time; more get a 429.
        max_wait_s: New sessions that would wait for longer get a 429, see ``WaitingLine``.
        responses: How many answers it keeps for ``previous_response_id``.
        hold: How streams behave while their turns are held.
    """

    max_body_bytes: int = 64 << 20
    max_sessions: int = 4_000
    max_under_way: int = 10_000
    max_wait_s: float = math.inf
    responses: StoreLimits = field(default_factory=StoreLimits)
    hold: HoldTerms = field(default_factory=HoldTerms)


def _ready() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around the endpoint.

    Attributes:
        epoch_s: Seconds since 1970, for timestamps.
        fleet: Replicas that report of themselves, for metrics.
        unready: Returns why what is behind the runner takes no turns; None while it does.
        tenants: Whose keys are taken; None lets everybody in, as one tenant.
        view: The rack to be watched; None for no such routes.
        journal: What outlives the process; None where nothing does.
        closing: By which it can be closed.
    """

    epoch_s: Callable[[], float] = epoch_s
    fleet: ProbedFleet | None = None
    unready: Callable[[], BackendError | None] = _ready
    tenants: TenantKeys | None = None
    view: ViewRoutes | None = None
    journal: GatewayJournal | None = None
    closing: Closing = field(default_factory=Closing)


def create_app(  # noqa: PLR0913 - what an endpoint is made of, by name
    runner: TurnRunner,
    *,
    model: str,
    speaker: EmulatedModel | ChatUpstream | None = None,
    limits: EndpointLimits | None = None,
    sessions: SessionDirectory | None = None,
    any_model_name: bool = False,
    surroundings: Surroundings | None = None,
) -> Starlette:
    """Return the endpoint in front of ``runner``.

    Args:
        runner: Runs turns.
        model: The name the model is served under.
        speaker: Says what is answered: an emulated model, by default a ``SeededModel``, or a real
            server, whose words come at the runner's pace; it speaks chat completions alone.
        limits: What it takes on.
        sessions: Who is known; by default nobody, and as many as ``limits`` say. Endpoints that
            share one tokenise a conversation once, whichever of them its turns come to.
        any_model_name: Whether the model answers to every name.
        surroundings: What is around it.
    """
    limits = EndpointLimits() if limits is None else limits
    around = Surroundings() if surroundings is None else surroundings
    models = Models.of_one(
        model, int(around.epoch_s()), runner.max_context_tokens, any_name=any_model_name
    )
    opening = opening_of(runner, models, limits, around, sessions)
    more = [LineMetrics(opening.line), JournalMetrics(around.journal)]
    counts = PrometheusCounts(opening.sessions, around.fleet, more)
    desk = TurnDesk(opening, RequestLimit(limits.max_under_way), counts, limits.hold)
    if isinstance(speaker, ChatUpstream):
        served = [chat_route(PacedCompletions(desk, speaker).answer)]
    else:
        planner = TurnPlanner(opening, SeededModel() if speaker is None else speaker)
        answers = AnswerDesk(desk, planner, model, around.epoch_s)
        served = dialect_routes(answers, _response_store(limits, around))
    served += common_routes(opening, counts, ServiceRoutes(around.unready, around.closing))
    if around.view is not None:
        served += view_routes(around.view)
    return application(served, around.tenants)


def opening_of(
    runner: TurnRunner,
    models: Models,
    limits: EndpointLimits,
    around: Surroundings,
    sessions: SessionDirectory | None = None,
) -> Opening:
    """Return what opens the requests of an endpoint.

    Args:
        runner: Runs their turns.
        models: What is served.
        limits: What the endpoint takes on.
        around: What is around it.
        sessions: Who is known; by default nobody.
    """
    journal, tenants = around.journal, around.tenants
    if sessions is None:
        era = "" if journal is None else f"{journal.era}-"
        sessions = SessionDirectory(
            runner.block_size_tokens, max_sessions=limits.max_sessions, era=era
        )
    taken_down = None
    if journal is not None:
        taken_down = SessionJournal(journal, sessions, runner.now_s, runner.close_session)
        sessions.listener = taken_down
    return Opening(
        runner,
        models,
        sessions,
        limits.max_body_bytes,
        WaitingLine(limits.max_wait_s),
        shares_kv=tenants is not None and tenants.share_kv,
        journal=taken_down,
        closing=around.closing,
    )


def _response_store(limits: EndpointLimits, around: Surroundings) -> ResponseStore[StoredResponse]:
    journal, terms = around.journal, limits.responses
    if journal is None:
        return ResponseStore(terms, around.epoch_s)
    taken_down = ResponseJournal(journal, stored_response, terms.ttl_s)
    return ResponseStore(terms, around.epoch_s, taken_down)


def application(served: Sequence[Served], tenants: TenantKeys | None) -> Starlette:
    """Return the app of these routes; errors have the shape of the API they are in.

    Args:
        served: The routes, those asked for most first.
        tenants: Whose keys are taken; None lets everybody in, as one tenant.
    """
    guards = [] if tenants is None else [Middleware(Authentication, keys=tenants)]
    return Starlette(
        routes=starlette_routes(served),
        middleware=[Middleware(RequestIds), *guards],
        exception_handlers={
            RequestError: on_runtime_error,
            BackendError: on_runtime_error,
            ClientDisconnect: on_disconnect,
            HTTPException: on_http_exception,
            Exception: on_unexpected,
        },
    )
