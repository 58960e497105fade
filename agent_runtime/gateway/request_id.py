"""Every answer carries its request's id: the caller's, if it is fit to be sent back, or ours.

OpenAI's clients look for ``x-request-id``, Anthropic's for ``request-id``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_LENGTH = 128
NAMES = (b"x-request-id", b"request-id")


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
        request_id = _given(scope["headers"]) or str(next(self._numbers))
        scope.setdefault("state", {})["request_id"] = request_id
        value = request_id.encode("ascii")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [one for one in message["headers"] if one[0] not in NAMES]
                headers += [(name, value) for name in NAMES]
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_with_id)


def _given(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    found = next((value for name, value in headers if name == NAMES[0]), b"")
    given = found.decode("latin-1").strip()
    fit = 0 < len(given) <= MAX_LENGTH and given.isascii() and given.isprintable()
    return given if fit else None
