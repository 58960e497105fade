"""Routes that pass to an engine as they are, without a turn: counting tokens, kept responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_runtime.backends.vllm_servers.engine_errands import EngineErrands, Errand, ErrandReply
from agent_runtime.errors import EngineLostError
from agent_runtime.gateway.leaving import leave_on_disconnect
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.relay.kept_responses import KeptResponses, RelayedResponse
from agent_runtime.gateway.relay.passed_headers import PassedHeaders
from agent_runtime.gateway.relay.responses_api import response_event
from agent_runtime.gateway.tenants import tenant_of
from agent_runtime.gateway.turn_desk import plain_headers
from agent_runtime.gateway.turn_stream import STREAM_HEADERS

NOT_FOUND, NO_SUCH_ROUTE = 404, 405
IN_QUERIES = "!$%&'()*+,-./:;=?@_~"
"""Beside letters and digits, RFC 3986."""


@dataclass(frozen=True, slots=True)
class ErrandRoutes:
    """The routes.

    Attributes:
        opening: Reads bodies.
        errands: Run them.
        headers: Which of a request's pass.
        kept: The responses known here.
    """

    opening: Opening
    errands: EngineErrands
    headers: PassedHeaders
    kept: KeptResponses

    async def of_any(self, request: Request) -> Response:
        """Answer what every engine can: counting and cutting tokens."""
        async with self.errands.ask_any(await self._errand(request)) as answered:
            return await _whole(answered)

    async def get_response(self, request: Request) -> Response:
        """Answer ``GET /v1/responses/{id}``: the engine's, else what passed here.

        Raises:
            UnknownResponseError: Nobody knows it, or it is another tenant's.
        """
        known, errand = await self._known(request), await self._errand(request)
        if known is None:
            return await self._of_whoever_knows(errand)
        if known.replica_id is None:
            return JSONResponse(known.body)
        stack = AsyncExitStack()
        async with stack:
            try:
                asked = self.errands.ask(known.replica_id, errand)
                answered = await stack.enter_async_context(asked)
            except EngineLostError:
                return JSONResponse(known.body)
            if answered.reply.status in {NOT_FOUND, NO_SUCH_ROUTE}:
                return JSONResponse(known.body)
            if answered.reply.content_type.startswith("text/event-stream"):
                return _PassedStream(answered, stack.pop_all())
            return await _whole(answered)

    async def delete_response(self, request: Request) -> Response:
        """Answer ``DELETE /v1/responses/{id}``: vLLM deletes none, but here it is gone.

        Raises:
            UnknownResponseError: It was not.
        """
        response_id = request.path_params["response_id"]
        await self.kept.delete(tenant_of(request), response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def cancel_response(self, request: Request) -> Response:
        """Answer ``POST /v1/responses/{id}/cancel``.

        Raises:
            UnknownResponseError: Nobody knows it, or it is another tenant's.
        """
        known, errand = await self._known(request), await self._errand(request)
        if known is None:
            return await self._of_whoever_knows(errand)
        if known.cancelled is not None:
            known.cancelled.happen()
            return JSONResponse({**known.body, "status": "cancelled"})
        if known.replica_id is None:
            return JSONResponse(known.body)
        async with self.errands.ask(known.replica_id, errand) as answered:
            return await _whole(answered)

    async def _of_whoever_knows(self, errand: Errand) -> Response:
        async with self.errands.ask_any(errand, until_found=True) as answered:
            return await _whole(answered)

    async def _known(self, request: Request) -> RelayedResponse | None:
        return await self.kept.find(tenant_of(request), request.path_params["response_id"])

    async def _errand(self, request: Request) -> Errand:
        body = await self.opening.read(request)
        path = quote(request.scope["path"])  # encoded anew: what the client wrote is not passed on
        query = quote(request.scope["query_string"], safe=IN_QUERIES)
        if query:
            path += f"?{query}"
        # The answer to a HEAD has no body to wait for; the server drops that of a GET.
        method = "GET" if request.method == "HEAD" else request.method
        return Errand(method, path, body, self.headers.of(plain_headers(request)))


def response_path(response_id: str) -> str:
    """Return where a response is."""
    return f"/v1/responses/{quote(response_id, safe='')}"


async def _whole(answered: ErrandReply) -> Response:
    reply = answered.reply
    return Response(await answered.whole(), reply.status, media_type=reply.content_type)


class _PassedStream(Response):
    """The events of a response that runs in the background; the engine's connection is its own."""

    def __init__(self, answered: ErrandReply, stack: AsyncExitStack) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._answered, self._stack = answered, stack

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack, leave_on_disconnect(scope, receive):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for data in self._chunks():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._answered.chunks():
                yield data
        except EngineLostError as error:
            yield response_event("error", 0, code="server_error", message=str(error), param=None)
