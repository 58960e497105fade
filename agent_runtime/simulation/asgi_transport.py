"""An httpx2 transport to an ASGI app in the same process that streams the response's body.

httpx's own runs the app to its end before it returns, so a client would see the last token's time
as the first's. This one returns as soon as the app has begun its response.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio
import httpx2
from anyio.abc import TaskGroup
from typing_extensions import override

from agent_runtime.errors import BackendError

Message: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class StreamingAsgiTransport(httpx2.AsyncBaseTransport):
    """Sends requests to an app, and gives back its response chunk by chunk.

    The client that owns it enters and leaves it; what the app does for a request lives in its task
    group and is cancelled when the client closes.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._tasks: TaskGroup | None = None

    @override
    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    @override
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(exc_type, exc_value, traceback)

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Begin a request; return when the app has begun its response.

        Raises:
            BackendError: The client was not entered, or the app returned without a response.
        """
        if self._tasks is None:
            raise BackendError("enter the client (async with) before it sends requests")
        exchange = _Exchange(await request.aread())
        self._tasks.start_soon(self._run_app, _scope(request), exchange)
        await exchange.started.wait()
        if exchange.head is None:
            raise exchange.error or BackendError("the app returned without a response")
        return httpx2.Response(
            exchange.head["status"],
            headers=exchange.head.get("headers", []),
            stream=_BodyStream(exchange),
        )

    async def _run_app(self, scope: Message, exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the client gets it
            exchange.error = error
        finally:
            exchange.started.set()
            exchange.disconnected.set()
            exchange.send_body.close()


class _Exchange:
    """One request and its response, as the app sees them."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.started = anyio.Event()
        self.disconnected = anyio.Event()
        self.head: Message | None = None
        self.error: Exception | None = None
        self.send_body, self.receive_body = anyio.create_memory_object_stream[bytes](math.inf)

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head = message
            self.started.set()
        elif message["type"] == "http.response.body":
            if message.get("body") and not self.disconnected.is_set():
                self.send_body.send_nowait(message["body"])
            if not message.get("more_body", False):
                self.send_body.close()


class _BodyStream(httpx2.AsyncByteStream):
    """The body of a response while it comes; closing it tells the app that the client left."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._exchange.receive_body:
            yield chunk
        if self._exchange.error is not None:
            raise self._exchange.error

    @override
    async def aclose(self) -> None:
        self._exchange.disconnected.set()
        self._exchange.receive_body.close()


def _scope(request: httpx2.Request) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
