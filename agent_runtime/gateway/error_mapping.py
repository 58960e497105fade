"""Errors to HTTP: one table, OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import (
    AgentRuntimeError,
    BackendError,
    BackendStoppedError,
    BodyTooLargeError,
    ContextTooLongError,
    InvalidRequestError,
    NoEngineError,
    RequestError,
    UnknownModelError,
    UnknownSessionError,
    UpstreamRefusedError,
)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    code: str | None


_TABLE: dict[type[AgentRuntimeError], _Answer] = {
    RequestError: _Answer(400, None),
    InvalidRequestError: _Answer(400, None),
    ContextTooLongError: _Answer(400, "context_length_exceeded"),
    UnknownModelError: _Answer(404, "model_not_found"),
    UnknownSessionError: _Answer(404, "session_not_found"),
    BodyTooLargeError: _Answer(413, None),
    BackendError: _Answer(502, None),
    BackendStoppedError: _Answer(503, None),
    NoEngineError: _Answer(503, None),
}
"""By class; an error without a row of its own has its nearest ancestor's."""


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return an error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - HTTP
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def runtime_error_response(error: RequestError | BackendError) -> Response:
    """Return what the table has for ``error``; the body is also what a broken stream ends with."""
    if isinstance(error, UpstreamRefusedError):
        wait_s = error.retry_after_s
        headers = None if wait_s is None else {"retry-after": f"{wait_s:g}"}
        return Response(error.body, error.status, headers, media_type="application/json")
    answer = next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)
    param = error.param if isinstance(error, RequestError) else None
    return error_response(answer.status, str(error), param=param, code=answer.code)


async def on_runtime_error(_: Request, error: Exception) -> Response:
    """Answer an error of the caller's or of a backend's."""
    assert isinstance(error, RequestError | BackendError)  # noqa: S101 - registered for these types
    return runtime_error_response(error)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown route or a wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(error.status_code, message, headers=error.headers)


async def on_unexpected(request: Request, _: Exception) -> JSONResponse:
    """Answer for our own bug; the server raises it again, so it is seen."""
    headers = {"x-request-id": request.state.request_id}
    return error_response(500, "internal error; the server's log has the details", headers=headers)
