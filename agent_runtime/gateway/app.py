"""The ASGI app: routes and what they share."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_runtime.clock import epoch_s
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.chat_completions import ChatCompletions
from agent_runtime.gateway.error_mapping import on_http_exception, on_runtime_error, on_unexpected
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.request_id import RequestIds
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.sessions import Sessions
from agent_runtime.turns import TurnRunner

MAX_BODY_BYTES = 64 << 20


def create_app(  # noqa: PLR0913
    runner: TurnRunner,
    *,
    model: str,
    emulated_model: EmulatedModel | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    epoch_s: Callable[[], float] = epoch_s,
    sessions: SessionDirectory | None = None,
    any_model_name: bool = False,
) -> Starlette:
    """Return the endpoint in front of ``runner``.

    Args:
        runner: Runs turns.
        model: The name the model is served under.
        emulated_model: Says what is answered; by default a ``SeededModel``.
        max_body_bytes: Larger bodies get a 413.
        epoch_s: Seconds since 1970, for ``created``.
        sessions: Whom to know; by default an empty directory with its default limits.
        any_model_name: Whether the model answers to every name.
    """
    models = Models(model, int(epoch_s()), runner.max_context_tokens, any_name=any_model_name)
    if sessions is None:
        sessions = SessionDirectory(runner.block_size_tokens)
    closing = Sessions(runner, sessions)
    chat = ChatCompletions(
        runner=runner,
        models=models,
        model=model,
        emulated_model=SeededModel() if emulated_model is None else emulated_model,
        max_body_bytes=max_body_bytes,
        epoch_s=epoch_s,
        sessions=sessions,
    )
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
