"""An engine in this process beside those over the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup

from agent_runtime.asgi_exchange import AsgiApp, AsgiExchange, AsgiRequest
from agent_runtime.backends.vllm_servers.engine_http import (
    PROBE_S,
    EngineHttp,
    EngineReply,
    EngineUnreachableError,
)

IN_PROCESS_URL = "http://127.0.0.1:0"
"""Stands for the engine in this process: nobody can listen on port 0."""

MAX_BUFFERED_CHUNKS = 64
"""An engine that is further ahead of a slow reader waits."""


class InProcessEngine:
    """``EngineHttp`` that asks an app in this process, and others as before.

    Args:
        app: The engine's API.
        others: For every other address.
        tasks: In which the app answers.
    """

    def __init__(self, app: AsgiApp, others: EngineHttp, tasks: TaskGroup) -> None:
        self._app = app
        self._others = others
        self._tasks = tasks

    async def get(self, url: str) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            EngineUnreachableError: No answer in time, or the app failed.
        """
        if not url.startswith(IN_PROCESS_URL):
            return await self._others.get(url)
        with anyio.move_on_after(PROBE_S):
            reply = await self._ask("GET", url, b"", {})
            body = b""
            while data := await reply.next_bytes():
                body += data
            return reply.status, body
        raise EngineUnreachableError(f"{url}: no answer within {PROBE_S:g} s", refused=False)

    async def send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> EngineReply:
        """Send a request; return once the answer has begun.

        Raises:
            EngineUnreachableError: The app failed.
        """
        if not url.startswith(IN_PROCESS_URL):
            return await self._others.send(method, url, body, headers)
        return await self._ask(method, url, body, {"content-type": "application/json", **headers})

    async def _ask(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> _InProcessReply:
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        named = {"host": "127.0.0.1", "content-length": str(len(body)), **headers}
        request = AsgiRequest(
            method=method,
            scheme="http",
            host="127.0.0.1",
            port=0,
            target=target.encode(),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in named.items()],
            body=body,
        )
        exchange = AsgiExchange(request, MAX_BUFFERED_CHUNKS)
        self._tasks.start_soon(exchange.run, self._app)
        try:
            await exchange.wait_for_response()
        except Exception as error:
            exchange.leave()
            raise EngineUnreachableError(f"{url}: {error!r}", refused=False) from error
        return _InProcessReply(exchange)


class _InProcessReply:
    """An ``EngineReply``."""

    __slots__ = ("_body", "_exchange", "_is_at_end")

    def __init__(self, exchange: AsgiExchange) -> None:
        self._exchange = exchange
        self._body = exchange.body()
        self._is_at_end = False

    @property
    def status(self) -> int:
        return self._exchange.status or 0

    @property
    def retry_after(self) -> str:
        return self._header(b"retry-after")

    @property
    def content_type(self) -> str:
        return self._header(b"content-type")

    def _header(self, wanted: bytes) -> str:
        for name, value in self._exchange.headers:
            if name.lower() == wanted:
                return value.decode("latin-1")
        return ""

    async def next_bytes(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            self._is_at_end = True
            self._exchange.leave()
            return b""
        except Exception as error:
            self.close()
            raise EngineUnreachableError(
                f"the reply broke off: {error!r}", refused=False
            ) from error

    @property
    def is_at_end(self) -> bool:
        return self._is_at_end

    def close(self) -> None:
        self._exchange.leave()


@asynccontextmanager
async def beside_in_process_engine(
    app: AsgiApp, others: EngineHttp
) -> AsyncIterator[InProcessEngine]:
    """Open an engine's app beside engines over the network; leaving ends what it answers."""
    async with anyio.create_task_group() as tasks:
        yield InProcessEngine(app, others, tasks)
        tasks.cancel_scope.cancel()
