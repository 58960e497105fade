"""The ASGI app before real engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.gateway.error_mapping import on_http_exception, on_runtime_error, on_unexpected
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.relay import Relay
from agent_runtime.gateway.relay_calls import CHAT_PATH, COMPLETIONS_PATH
from agent_runtime.gateway.relay_opening import RelayOpening
from agent_runtime.gateway.request_id import RequestIds
from agent_runtime.gateway.served_models import ServedModels
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.sessions import Sessions
from agent_runtime.gateway.token_counts import TokenCounts
from agent_runtime.turns import TurnRunner

UNAVAILABLE = 503


def create_relay_app(
    runner: TurnRunner,
    *,
    cards: Callable[[], Sequence[dict[str, Any]]],
    num_up: Callable[[], int],
    counts: TokenCounts | None = None,
    limits: EndpointLimits | None = None,
    own_key: bool = False,
) -> Starlette:
    """Return the endpoint in front of ``runner``, whose turns run on real engines.

    Args:
        runner: Runs turns.
        cards: Returns the models served.
        num_up: Returns how many engines are up.
        counts: Where what engines count is kept.
        limits: What it takes on.
        own_key: Whether the gateway has a key of its own for the engines; clients' are then kept
            from them.
    """
    limits = EndpointLimits() if limits is None else limits
    sessions = SessionDirectory(runner.block_size_tokens, max_sessions=limits.max_sessions)
    opening = RelayOpening(runner, sessions, num_up, TokenCounts() if counts is None else counts)
    models = ServedModels(cards)
    relay = Relay(opening, models, limits.max_body_bytes, own_key=own_key)
    unnamed = Models("engines", 0, runner.max_context_tokens, any_name=True)
    about = Sessions(Opening(runner, unnamed, sessions, limits.max_body_bytes))

    async def health(_: Request) -> Response:
        num = num_up()
        return JSONResponse({"engines_up": num}, status_code=200 if num else UNAVAILABLE)

    return Starlette(
        routes=[
            Route(CHAT_PATH, relay.answer, methods=["POST"]),
            Route(COMPLETIONS_PATH, relay.answer, methods=["POST"]),
            Route("/v1/models", models.list_all, methods=["GET"]),
            Route("/v1/models/{name:path}", models.get_one, methods=["GET"]),
            Route("/v1/sessions/{session_id:path}", about.close, methods=["DELETE"]),
            Route("/health", health, methods=["GET"]),
        ],
        middleware=[Middleware(RequestIds)],
        exception_handlers={
            RequestError: on_runtime_error,
            BackendError: on_runtime_error,
            HTTPException: on_http_exception,
            Exception: on_unexpected,
        },
    )
