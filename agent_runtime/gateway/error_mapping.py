"""Errors to HTTP: one table, OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from agent_runtime.errors import (
    BodyTooLargeError,
    ContextTooLongError,
    InvalidRequestError,
    RequestError,
    UnknownModelError,
)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    code: str | None


_TABLE: dict[type[RequestError], _Answer] = {
    InvalidRequestError: _Answer(400, None),
    ContextTooLongError: _Answer(400, "context_length_exceeded"),
    UnknownModelError: _Answer(404, "model_not_found"),
    BodyTooLargeError: _Answer(413, None),
}


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


async def on_request_error(_: Request, error: Exception) -> JSONResponse:
    """Answer an error that is the caller's."""
    assert isinstance(error, RequestError)  # noqa: S101 - registered for this type
    answer = _TABLE[type(error)]
    return error_response(answer.status, str(error), param=error.param, code=answer.code)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown route or a wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(error.status_code, message, headers=error.headers)


async def on_unexpected(_: Request, __: Exception) -> JSONResponse:
    """Answer for our own bug; the server raises it again, so it is seen."""
    return error_response(500, "internal error; the server's log has the details")
