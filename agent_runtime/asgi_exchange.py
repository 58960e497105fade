"""One HTTP request to an ASGI app in the same process, its response taken chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

import anyio
import anyio.lowlevel

from agent_runtime.client_departure import EXTENSION, Departure
from agent_runtime.errors import BackendError

Message: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class AsgiRequest:
    """What a client asks, as any HTTP library can say it.

    Attributes:
        target: Path and query as they stand in the request line.
    """

    method: str
    scheme: str
    host: str
    port: int | None
    target: bytes
    headers: Headers
    body: bytes

    def scope(self, departure: Departure) -> Message:
        """Return the ASGI scope.

        Args:
            departure: Tells the app that the client left.
        """
        path, _, query = self.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "headers": [(name.lower(), value) for name, value in self.headers],
            "scheme": self.scheme,
            "path": _unquoted(path),
            "raw_path": path,
            "query_string": query,
            "server": (self.host, self.port),
            "client": ("127.0.0.1", 1),
            "root_path": "",
            "extensions": {EXTENSION: departure},
        }


class AsgiExchange:
    """A request and its response, between the task that runs the app and the client's.

    Args:
        request: What is asked.
        max_buffered_chunks: Of the response; an app that is further ahead of its reader waits.

    Attributes:
        status, headers: Of the response, once ``wait_for_response`` returned.
    """

    def __init__(self, request: AsgiRequest, max_buffered_chunks: float = math.inf) -> None:
        self._request = request
        self._body: bytes | None = request.body
        self._started = anyio.Event()
        self._left = anyio.Event()
        self._departure = Departure()
        self._error: Exception | None = None
        self._is_bounded = max_buffered_chunks < math.inf
        self._send_body, self._receive_body = anyio.create_memory_object_stream[bytes](
            max_buffered_chunks
        )
        self.status: int | None = None
        self.headers: Headers = ()

    async def run(self, app: AsgiApp) -> None:
        """Let the app answer; what it raises goes to the client."""
        try:
            await app(self._request.scope(self._departure), self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - the client gets it
            self._error = error
        finally:
            self._started.set()
            self._left.set()
            self._send_body.close()

    def break_off(self, error: Exception) -> None:
        """End the response with an error, for whoever was to run the app and can't any more."""
        self._error = self._error or error
        self._started.set()
        self._left.set()
        self._send_body.close()

    async def wait_for_response(self) -> None:
        """Return when the app has begun its response; a client that can't wait leaves.

        Raises:
            BackendError: The app returned without a response. What it raises is raised here.
        """
        try:
            await self._started.wait()
        except BaseException:
            self.leave()
            raise
        if self.status is None:
            raise self._error or BackendError("the app returned without a response")

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the response's body as it comes."""
        async for chunk in self._receive_body:
            yield chunk
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Tell the app that the client is gone."""
        self._left.set()
        self._receive_body.close()
        self._departure.happen()

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = message.get("headers", [])
            self._started.set()
        elif message["type"] == "http.response.body":
            if message.get("body"):
                await self._pass_on(message["body"])
            if not message.get("more_body", False):
                self._send_body.close()

    async def _pass_on(self, body: bytes) -> None:
        if self._left.is_set():
            await anyio.lowlevel.checkpoint()  # for whoever waits for the client to leave
            return
        if not self._is_bounded:
            self._send_body.send_nowait(body)
            return
        with suppress(anyio.BrokenResourceError):  # the client left while the app waited for it
            await self._send_body.send(body)


def _unquoted(path: bytes) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")
