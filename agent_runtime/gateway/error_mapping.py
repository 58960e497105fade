"""Errors to HTTP: one table of statuses, and the shape that each API gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import (
    AgentRuntimeError,
    AuthenticationError,
    BackendError,
    BackendStoppedError,
    BodyTooLargeError,
    ContextTooLongError,
    InvalidRequestError,
    JournalUnreadableError,
    NoEngineError,
    NotAllowedError,
    RequestError,
    SessionStateError,
    TooManyRequestsError,
    TooManyViewersError,
    UnknownModelError,
    UnknownResponseError,
    UnknownSessionError,
    UnknownTurnError,
    UpstreamRefusedError,
)

CLIENT_CLOSED_REQUEST = 499
RETRY_JOURNAL_S = 1.0
"""As often it is tried whether the journal can be read again."""
RETRY_STOPPED_S = 5.0
"""A server that shuts down, or engines that are down, are back after about as long."""

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's reference, "Errors"; other 4xx are invalid requests, other 5xx API errors."""


TOO_LONG = "prompt is too long"
"""By these words Anthropic's clients know when to compact a conversation."""
_TOO_LONG_CODE = "context_length_exceeded"


@dataclass(frozen=True, slots=True)
class HttpError:
    """An error as every API tells it, in its own words.

    Attributes:
        status: Of the response.
        message: With the fix.
        param: The field at fault, or None.
        code: For programs, or None.
        retry_after_s: When to ask again, or None.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @property
    def openai_body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"  # noqa: PLR2004 - HTTP
        kind = _OPENAI_TYPES.get(self.status, kind)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def anthropic_body(self) -> dict[str, Any]:
        """Anthropic's shape."""
        fallback = ANTHROPIC_TYPES[400 if self.status < 500 else 500]  # noqa: PLR2004 - HTTP
        kind = ANTHROPIC_TYPES.get(self.status, fallback)
        message = f"{TOO_LONG}: {self.message}" if self.code == _TOO_LONG_CODE else self.message
        return {"type": "error", "error": {"type": kind, "message": message}}

    def response(self, path: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """Return it in the shape of the API that a path belongs to."""
        body = self.anthropic_body if path.startswith("/v1/messages") else self.openai_body
        more = dict(headers or {})
        if self.retry_after_s is not None:
            more["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        return JSONResponse(body, status_code=self.status, headers=more)


_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_TABLE: dict[type[AgentRuntimeError], tuple[int, str | None]] = {
    RequestError: (400, None),
    InvalidRequestError: (400, None),
    ContextTooLongError: (400, _TOO_LONG_CODE),
    UnknownTurnError: (404, "turn_not_found"),
    AuthenticationError: (401, "invalid_api_key"),
    NotAllowedError: (403, "key_not_allowed"),
    UnknownModelError: (404, "model_not_found"),
    UnknownSessionError: (404, "session_not_found"),
    UnknownResponseError: (404, "response_not_found"),
    SessionStateError: (409, "session_state"),
    BodyTooLargeError: (413, None),
    TooManyRequestsError: (429, "rate_limit_exceeded"),
    BackendError: (502, None),
    BackendStoppedError: (503, None),
    NoEngineError: (503, None),
    JournalUnreadableError: (503, None),
    TooManyViewersError: (503, None),
}
"""By class; an error without a row of its own has its nearest ancestor's."""


def http_error(error: RequestError | BackendError) -> HttpError:
    """Return what the table has for an error."""
    if isinstance(error, UpstreamRefusedError):
        return _upstream(error)
    status, code = next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)
    retry_after_s = None
    if isinstance(error, TooManyRequestsError):
        retry_after_s = error.retry_after_s
    elif isinstance(error, BackendStoppedError | NoEngineError | TooManyViewersError):
        retry_after_s = RETRY_STOPPED_S
    elif isinstance(error, JournalUnreadableError):
        retry_after_s = RETRY_JOURNAL_S
    param = error.param if isinstance(error, RequestError) else None
    return HttpError(status, str(error), param, code, retry_after_s)


def error_response(error: RequestError | BackendError, path: str) -> Response:
    """Return the response for an error on a route."""
    if isinstance(error, UpstreamRefusedError) and not path.startswith("/v1/messages"):
        return Response(error.body, error.status, media_type="application/json")
    return http_error(error).response(path)


def _upstream(error: UpstreamRefusedError) -> HttpError:
    """Return what another server said, for an API that is not its own."""
    try:
        said = from_json(error.body)
    except ValueError:
        said = None
    told = said.get("error") if isinstance(said, dict) else None
    message = told.get("message") if isinstance(told, dict) else None
    return HttpError(
        error.status,
        message if isinstance(message, str) else str(error),
        retry_after_s=error.retry_after_s,
    )


async def on_runtime_error(request: Request, error: Exception) -> Response:
    """Answer an error of the caller's or of a backend's."""
    assert isinstance(error, RequestError | BackendError)  # noqa: S101 - registered for these types
    return error_response(error, request.scope["path"])


async def on_disconnect(_: Request, __: Exception) -> Response:
    """Answer a client that left before its request was here; nobody sees it."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown route or a wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    path: str = request.scope["path"]
    message = f"{request.method} {path}: {error.detail}"
    return HttpError(error.status_code, message).response(path, error.headers)


async def on_unexpected(request: Request, _: Exception) -> JSONResponse:
    """Answer for our own bug; the server raises it again, so it is seen."""
    headers = {"x-request-id": request.state.request_id}
    error = HttpError(500, "internal error; the server's log has the details")
    return error.response(request.scope["path"], headers)
