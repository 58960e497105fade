"""What commands that serve an endpoint share: listening, and stopping without a hang."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import anyio
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from agent_runtime.cli.plain_connection import PlainConnection
from agent_runtime.errors import ConfigError
from agent_runtime.garbage import collect_garbage_rarely


def listen(host: str, port: int, *, port_option: str = "--port") -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The address is taken, or none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"can't listen on {host}:{port}: {error}; choose another --host or {port_option}"
        ) from error
    # Connections inherit it. asyncio sets it only on sockets whose protocol is named, which this
    # one's isn't, and without it a token waits until the client acknowledged the one before: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


ACCEPTED_A_TURN = 16
"""Connections that are taken in one turn of the loop: libuv, under uvloop, takes one a listening
socket. Under load a turn takes tens of milliseconds, and of a hundred clients that come at once the
last would wait for seconds; so the same socket is listened on several times."""


KEEP_ALIVE_S = 75
"""Who asks must be the first to close an idle connection, or a request meets a closed one now and
then: load balancers keep theirs for 60 s, and many clients for 5 s, which is uvicorn's time too."""

VLLM_KEEP_ALIVE_S = 5


def endpoint_config(
    app: ASGIApp, grace_s: int = 5, *, keep_alive_s: int = KEEP_ALIVE_S
) -> uvicorn.Config:
    """Return how an endpoint is served.

    Args:
        app: What is served.
        grace_s: For connections to close when it stops.
        keep_alive_s: For which connections are kept that nobody uses.
    """
    http: type[asyncio.Protocol] = PlainConnection
    if find_spec("httptools") is not None:
        from agent_runtime.cli.client_connection import ClientConnection  # noqa: PLC0415 - an extra

        http = ClientConnection
    return uvicorn.Config(
        app,
        http=http,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=grace_s,
        timeout_keep_alive=keep_alive_s,
    )


CLOSE = b"connection", b"close"
HANG_UP_S = 2
FLUSH_S = 0.2
"""In which last words reach those who read."""


class EndpointServer(uvicorn.Server):
    """Ends the turns under way before it waits for their connections to close.

    Signals are left to whoever opened it.

    Connections whose clients do not read what is sent are hung up on after the config's grace.

    Args:
        config: What is served, and how.
        stop: Ends the turns.
    """

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._grace_s = config.timeout_graceful_shutdown or 0
        # Beyond it uvicorn cancels tasks, with a stack trace each: for those that hang though their
        # connections are gone.
        config.timeout_graceful_shutdown = self._grace_s + HANG_UP_S
        self._hurried = anyio.Event()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        named = sockets or []
        again = [one.dup() for one in named for _ in range(ACCEPTED_A_TURN - 1)]
        await super().startup([*named, *again] or None)
        collect_garbage_rarely()

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def close_connections_once_answered(self) -> None:
        """Close each connection after the answer under way, or its next one.

        None is closed at once: what its client is just sending would be lost without an answer.
        """
        self.config.encoded_headers.append(CLOSE)  # they are read again every second
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        for connection in self.server_state.connections:
            cycle = getattr(connection, "cycle", None)  # of a request; HTTP/1 has it alone
            if cycle is not None and not cycle.response_complete:
                connection.shutdown()

    def hurry(self) -> None:
        """Give clients no time to read what was sent when it ends, or ends already."""
        self._hurried.set()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hang_up_in_time)
            await super().shutdown(sockets)
            tasks.cancel_scope.cancel()

    async def _hang_up_in_time(self) -> None:
        with anyio.move_on_after(self._grace_s):
            await self._hurried.wait()
            await anyio.sleep(FLUSH_S)
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
