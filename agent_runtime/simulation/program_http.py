"""Gives a program's HTTP clients the emulated rack instead of the network.

Every client of httpx and httpx2 ends in one of four transports; while the context lasts, these hand
what is meant for the rack to the app, and refuse the rest.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the program's own loop is asked for
import importlib
import importlib.util
import threading  # noqa: TID251 - to refuse other threads
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.errors import OutsideTimeError
from agent_runtime.simulation import asgi_client
from agent_runtime.simulation.replacement import replaced
from agent_runtime.simulation.virtual_time import VirtualTimeLoop

RACK_HOST = "panjiu.invalid"
"""A name that no network knows (RFC 6761)."""

RACK_HOSTS = frozenset({RACK_HOST, "127.0.0.1", "localhost", "::1", "api.openai.com"})
"""Where programs expect a model; nothing real is to be had at any of them in virtual time."""

LIBRARIES = ("httpx2", "httpx")


class ProgramHttp:
    """Runs the requests of one program.

    Args:
        app: The rack's endpoint.
        idle_loop: Runs the requests of code that has no loop of its own running.
    """

    def __init__(self, app: AsgiApp, idle_loop: VirtualTimeLoop) -> None:
        self._app = app
        self._idle_loop = idle_loop
        self._thread = threading.current_thread()
        self._answering: set[asyncio.Task[None]] = set()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the transports of the libraries that are installed, until the context is left."""
        with ExitStack() as stack:
            for name in LIBRARIES:
                if importlib.util.find_spec(name) is not None:
                    library = importlib.import_module(name)
                    transport, blocking = library.AsyncHTTPTransport, library.HTTPTransport
                    answer, answer_blocking = (
                        self._async_handler(library),
                        self._sync_handler(library),
                    )
                    stack.enter_context(replaced(transport, handle_async_request=answer))
                    stack.enter_context(replaced(blocking, handle_request=answer_blocking))
            yield

    def _async_handler(self, library: ModuleType) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def handle_async_request(_: object, request: Any) -> Any:  # noqa: ANN401
            self._check(request)
            if not isinstance(_running_loop(), VirtualTimeLoop):
                raise OutsideTimeError(
                    f"{request.method} {request.url}: the program runs an event loop of its own "
                    "(uvloop, trio); virtual time needs asyncio's"
                )
            return await asgi_client.send(library, self._app, self._start, request)

        return handle_async_request

    def _sync_handler(self, library: ModuleType) -> Callable[..., Any]:
        def handle_request(_: object, request: Any) -> Any:  # noqa: ANN401
            self._check(request)
            if _running_loop() is not None:
                raise OutsideTimeError(
                    f"{request.method} {request.url}: a blocking request inside an event loop "
                    "would stop virtual time; use the library's async client there"
                )
            run = self._idle_loop.run_until_complete
            response = run(asgi_client.send(library, self._app, self._start, request))
            response.stream = _sync_stream(library, response.stream, run)
            return response

        return handle_request

    def _check(self, request: Any) -> None:  # noqa: ANN401 - of either library
        if threading.current_thread() is not self._thread:
            raise OutsideTimeError(
                f"{request.method} {request.url}: requests from threads can't be simulated; use "
                "tasks and the library's async client, or run in real time"
            )
        if request.url.host not in RACK_HOSTS:
            raise OutsideTimeError(
                f"{request.method} {request.url}: there is no network in virtual time; have the "
                "tool answer from a file, or run in real time"
            )

    def _start(self, run: Callable[[AsgiApp], Coroutine[Any, Any, None]], app: AsgiApp) -> None:
        """Answer in a task of the program's loop: what else could hold it, unknown to the program?

        The loop's runner cancels it with all other tasks when the program's ``run`` ends.
        """
        task = asyncio.get_running_loop().create_task(run(app))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _sync_stream(library: ModuleType, stream: Any, run: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    """Return a ``library.SyncByteStream`` that moves the idle loop on for each chunk."""

    class BodyStream(library.SyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Iterator[bytes]:
            chunks = aiter(stream)

            async def following() -> bytes | None:
                return await anext(chunks, None)

            while (chunk := run(following())) is not None:
                yield chunk

        def close(self) -> None:
            run(stream.aclose())

    return BodyStream()
