"""How a server stops: it drains at the first signal, and ends at once at the second.

While it drains it still listens, as load balancers want it: ``/ready`` tells them to send no more,
what they send until they have seen it gets a 503 and its connection closed, and turns under way
come to their ends, those that are held too.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import uvicorn
from anyio.abc import TaskStatus

from agent_runtime.cli.rack_server import EndpointServer
from agent_runtime.gateway.closing import Closing

DRAIN_S = 25.0
"""By default: within the 30 s after which Kubernetes kills what it has told to end."""

Signals = AsyncIterator[signal.Signals]


class Stoppable(Protocol):
    """A service that an endpoint is in front of."""

    @property
    def closing(self) -> Closing:
        """By which its endpoint can be closed."""
        ...

    def stop(self) -> None:
        """End all turns."""
        ...


class GracefulStop:
    """Waits for signals to stop, and has a server do so.

    Args:
        drain_s: For turns under way to come to their ends.
        notice: Is told what happens, a line each.
    """

    def __init__(self, drain_s: float, notice: Callable[[str], None]) -> None:
        self._drain_s = drain_s
        self._notice = notice
        self._served: tuple[EndpointServer, Closing] | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen for signals while the context lasts; until something is served, one ends it."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._listen, tasks.cancel_scope)
            yield
            tasks.cancel_scope.cancel()

    async def serve(
        self, config: uvicorn.Config, service: Stoppable, listener: socket.socket
    ) -> None:
        """Serve until stopped."""
        server = EndpointServer(config, service.stop)
        self._served = server, service.closing
        await server.serve(sockets=[listener])

    async def _listen(
        self,
        inside: anyio.CancelScope,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            await anext(signals)
            if self._served is None:
                self._notice("stopped")
                inside.cancel()
                return
            await self._stop(*self._served, signals)

    async def _stop(self, server: EndpointServer, closing: Closing, signals: Signals) -> None:
        closing.begin()
        server.close_connections_once_answered()
        if closing.num_under_way:
            self._notice(
                f"draining: {_requests(closing.num_under_way)} under way, for {self._drain_s:g} s "
                "at most; a second signal ends them at once"
            )
        begun_s = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_signal, signals, server, tasks.cancel_scope)
            with anyio.move_on_after(self._drain_s):
                await closing.until_idle()
            tasks.cancel_scope.cancel()
        took_s = anyio.current_time() - begun_s
        num_cut = closing.cut()
        cut = f": {_requests(num_cut)} cut off after {took_s:.0f} s" if num_cut else ""
        self._notice("stopped" + cut)
        server.should_exit = True
        await anext(signals)
        server.hurry()


async def _cancel_on_signal(
    signals: Signals, server: EndpointServer, waiting: anyio.CancelScope
) -> None:
    await anext(signals)
    server.hurry()
    waiting.cancel()


def _requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number:,} requests"
