"""The ASGI app: routes and what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.clock import epoch_s
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.chat_completions import ChatCompletions
from agent_runtime.gateway.chat_opening import ChatOpening
from agent_runtime.gateway.error_mapping import on_http_exception, on_runtime_error, on_unexpected
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.paced_completions import PacedCompletions
from agent_runtime.gateway.request_id import RequestIds
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.sessions import Sessions
from agent_runtime.turns import TurnRunner


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What the endpoint takes on.

    Attributes:
        max_body_bytes: Larger bodies get a 413.
        max_sessions: How many conversations it knows at a time, see ``SessionDirectory``.
    """

    max_body_bytes: int = 64 << 20
    max_sessions: int = 4_000


def create_app(  # noqa: PLR0913 - what an endpoint is made of, by name
    runner: TurnRunner,
    *,
    model: str,
    speaker: EmulatedModel | ChatUpstream | None = None,
    limits: EndpointLimits | None = None,
    sessions: SessionDirectory | None = None,
    epoch_s: Callable[[], float] = epoch_s,
    any_model_name: bool = False,
) -> Starlette:
    """Return the endpoint in front of ``runner``.

    Args:
        runner: Runs turns.
        model: The name the model is served under.
        speaker: Says what is answered: an emulated model, by default a ``SeededModel``, or a real
            server, whose words come at the runner's pace.
        limits: What it takes on.
        sessions: Who is known; by default nobody, and as many as ``limits`` say. Endpoints that
            share one tokenise a conversation once, whichever of them its turns come to.
        epoch_s: Seconds since 1970, for ``created``.
        any_model_name: Whether the model answers to every name.
    """
    limits = EndpointLimits() if limits is None else limits
    models = Models(model, int(epoch_s()), runner.max_context_tokens, any_name=any_model_name)
    if sessions is None:
        sessions = SessionDirectory(runner.block_size_tokens, max_sessions=limits.max_sessions)
    opening = ChatOpening(runner, models, sessions, limits.max_body_bytes)
    chat: ChatCompletions | PacedCompletions
    if isinstance(speaker, ChatUpstream):
        chat = PacedCompletions(opening, speaker)
    else:
        emulated_model = SeededModel() if speaker is None else speaker
        chat = ChatCompletions(opening, model, emulated_model, epoch_s)
    closing = Sessions(runner, sessions)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat.answer, methods=["POST"]),
            Route("/v1/models", models.list_all, methods=["GET"]),
            Route("/v1/models/{name:path}", models.get_one, methods=["GET"]),
            Route("/v1/sessions/{session_id:path}", closing.close, methods=["DELETE"]),
            Route("/health", _health, methods=["GET"]),
        ],
        middleware=[Middleware(RequestIds)],
        exception_handlers={
            RequestError: on_runtime_error,
            BackendError: on_runtime_error,
            HTTPException: on_http_exception,
            Exception: on_unexpected,
        },
    )


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})
