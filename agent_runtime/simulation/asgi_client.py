"""The client's side of an exchange with an ASGI app, for httpx and httpx2 alike.

Both have the same requests, responses and streams under other module names, so the module is an
argument. Read time-outs are kept as httpcore keeps them: between the bytes, not over the whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import ModuleType
from typing import Any, TypeVar

import anyio

from agent_runtime.asgi_exchange import AsgiApp, AsgiExchange, AsgiRequest

T = TypeVar("T")

StartTask = Callable[[Callable[[AsgiApp], Coroutine[Any, Any, None]], AsgiApp], object]
"""Starts the task in which the app answers."""


async def send(library: ModuleType, app: AsgiApp, start: StartTask, request: Any) -> Any:  # noqa: ANN401 - of either library
    """Send a request to an app; return the response as soon as the app has begun it.

    Args:
        library: ``httpx2`` or ``httpx``.
        app: Answers.
        start: Where it runs.
        request: A ``library.Request``; its body is read here.

    Raises:
        library.ReadTimeout: The app took longer than the client waits.
        BackendError: The app returned without a response.
    """
    body = (
        await request.aread()
        if isinstance(request.stream, library.AsyncByteStream)
        else request.read()
    )
    exchange = AsgiExchange(
        AsgiRequest(
            method=request.method,
            scheme=request.url.scheme,
            host=request.url.host,
            port=request.url.port,
            target=request.url.raw_path,
            headers=request.headers.raw,
            body=body,
        )
    )
    start(exchange.run, app)
    timeout_s = request.extensions.get("timeout", {}).get("read")
    try:
        await _in_time(library, timeout_s, exchange, exchange.wait_for_response())
    except BaseException:
        exchange.leave()
        raise
    stream = _body_stream(library, timeout_s, exchange)
    return library.Response(exchange.status, headers=list(exchange.headers), stream=stream)


def _body_stream(library: ModuleType, timeout_s: float | None, exchange: AsgiExchange) -> Any:  # noqa: ANN401
    """Return a ``library.AsyncByteStream`` whose closing tells the app that the client left."""

    class BodyStream(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            chunks = exchange.body()
            while True:
                try:
                    yield await _in_time(library, timeout_s, exchange, anext(chunks))
                except StopAsyncIteration:
                    return

        async def aclose(self) -> None:
            exchange.leave()

    return BodyStream()


async def _in_time(
    library: ModuleType, timeout_s: float | None, exchange: AsgiExchange, awaited: Awaitable[T]
) -> T:
    if timeout_s is None:
        return await awaited
    try:
        with anyio.fail_after(timeout_s):
            return await awaited
    except TimeoutError:
        exchange.leave()
        raise library.ReadTimeout("") from None  # httpcore's has no message either
