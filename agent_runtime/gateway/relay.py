"""``POST /v1/chat/completions`` and ``/v1/completions`` before real engines: the bytes pass."""

from __future__ import annotations

import json
import string
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_runtime.errors import BackendError
from agent_runtime.gateway.body_reading import read_body
from agent_runtime.gateway.error_mapping import error_response, http_error
from agent_runtime.gateway.relay_attempts import RelayAttempts
from agent_runtime.gateway.relay_calls import CHAT_PATH, parse_relayed
from agent_runtime.gateway.relay_opening import RelayOpening
from agent_runtime.gateway.served_models import ServedModels
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.turn_stream import leave_on_disconnect

CLIENT_CLOSED_REQUEST = 499
HEADER_SAFE = string.punctuation.replace("%", "") + " "
"""What a session id keeps in a header; the rest, such as non-ASCII, is percent-encoded."""

NOT_PASSED_ON = frozenset(
    {
        "host", "connection", "keep-alive", "proxy-authorization", "te", "trailer", "upgrade",
        "transfer-encoding", "content-length", "content-type", "accept-encoding", "accept",
        "user-agent", "x-session-id",
    }
)  # fmt: skip
"""Headers that are of this connection, or that the gateway sets itself."""


@dataclass(slots=True)
class Relay:
    """The endpoint.

    Attributes:
        opening: Finds sessions.
        models: What engines serve.
        max_body_bytes: Larger bodies are refused.
        own_key: Whether the gateway has a key of its own for the engines.
    """

    opening: RelayOpening
    models: ServedModels
    max_body_bytes: int
    own_key: bool = False

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            body = await read_body(request, self.max_body_bytes)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        call = parse_relayed(request.url.path, body, self._headers(request))
        if call.model is not None and (unknown := self.models.unknown(call.model)) is not None:
            return unknown
        opened = self.opening.open(call, Caller(request.headers, now_s=self.opening.runner.now_s()))
        headers = {"x-session-id": quote(opened.session.public_id, safe=HEADER_SAFE)}
        async with AsyncExitStack() as opening:
            chunks = await opening.enter_async_context(RelayAttempts(self.opening, opened))
            if not call.streams:
                return await _whole(chunks, request.receive, headers)
            first, failure = await _first_bytes(chunks, request.receive)
            if failure is not None:
                return _with_headers(failure, headers)
            stack = opening.pop_all()  # nothing is awaited from here to whoever closes it
        return RelayedStream(first, chunks, stack, headers)

    def _headers(self, request: Request) -> Mapping[str, str]:
        headers = {k: v for k, v in request.headers.items() if k not in NOT_PASSED_ON}
        if self.own_key:
            headers.pop("authorization", None)
        return headers


class RelayedStream(Response):
    """Server-sent events as they come; ends the turn when the client leaves.

    ``send`` waits while the client takes no bytes, and the engine's are not read meanwhile.
    """

    def __init__(
        self,
        first: bytes,
        chunks: AsyncIterator[bytes],
        stack: AsyncExitStack,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={**headers, "cache-control": "no-cache"})
        self._first, self._chunks, self._stack = first, chunks, stack
        self.raw_headers = [
            *((k, v) for k, v in self.raw_headers if k not in {b"content-length", b"content-type"}),
            (b"content-type", b"text/event-stream; charset=utf-8"),
        ]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with leave_on_disconnect(receive):
                await _send_body(send, self._first, more=True)
                try:
                    async for data in self._chunks:
                        await _send_body(send, data, more=True)
                except BackendError as error:
                    end = _broken_off(error)
                    await _send_body(send, end, more=True)
                await _send_body(send, b"", more=False)


async def _first_bytes(
    chunks: AsyncIterator[bytes], receive: Receive
) -> tuple[bytes, Response | None]:
    """Return what an answer begins with, or the response to a call that has none."""
    first, failure = b"", None
    async with leave_on_disconnect(receive) as left:
        try:
            first = await anext(chunks, b"")
        except BackendError as error:
            failure = error_response(error, CHAT_PATH)
    if left.client_left:
        failure = Response(status_code=CLIENT_CLOSED_REQUEST)
    return first, failure


async def _whole(
    chunks: AsyncIterator[bytes], receive: Receive, headers: Mapping[str, str]
) -> Response:
    data: list[bytes] = []
    failure: Response | None = None
    async with leave_on_disconnect(receive) as left:
        try:
            data = [chunk async for chunk in chunks]
        except BackendError as error:
            failure = error_response(error, CHAT_PATH)
    if left.client_left:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if failure is not None:
        return _with_headers(failure, headers)
    return Response(b"".join(data), media_type="application/json", headers=dict(headers))


async def _send_body(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _with_headers(response: Response, headers: Mapping[str, str]) -> Response:
    response.headers.update(headers)
    return response


def _broken_off(error: BackendError) -> bytes:
    """Return the events that end a stream which can't go on."""
    body = json.dumps(http_error(error).openai_body).encode()
    return b"data: " + body + b"\n\ndata: [DONE]\n\n"
