"""What commands that serve an endpoint share: listening, and stopping without a hang."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

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


def endpoint_config(app: ASGIApp, grace_s: int = 5) -> uvicorn.Config:
    """Return how an endpoint is served.

    Args:
        app: What is served.
        grace_s: For connections to close when it stops.
    """
    http: type[asyncio.Protocol] | Literal["auto"] = "auto"
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
    )


CLOSE = b"connection", b"close"


class EndpointServer(uvicorn.Server):
    """Ends the turns under way before it waits for their connections to close.

    Signals are left to whoever opened it.

    Args:
        config: What is served, and how.
        stop: Ends them.
    """

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

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

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop()
        await super().shutdown(sockets)
