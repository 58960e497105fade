"""Every answer carries its request's id: the caller's, if it is fit to be sent back, or ours.

OpenAI's clients look for ``x-request-id``, Anthropic's for ``request-id``.
"""

from __future__ import annotations

import itertools

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_LENGTH = 128


class RequestIds:
    """ASGI middleware: sets ``request.state.request_id`` and the header of the answer.

    Answers to unexpected errors are made outside of it; whoever makes them sets the header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given(Headers(scope=scope)) or str(next(self._numbers))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers["x-request-id"] = headers["request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def _given(headers: Headers) -> str | None:
    given = headers.get("x-request-id", "").strip()
    fit = 0 < len(given) <= MAX_LENGTH and given.isascii() and given.isprintable()
    return given if fit else None
