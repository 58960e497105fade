"""KV events by ZMQ, as vLLM publishes them: a PUB socket, and a ROUTER that repeats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from agent_runtime.backends.kv_event_wire import SEQUENCE_BYTES
from agent_runtime.backends.vllm_servers.engine_facts import EventSource
from agent_runtime.backends.vllm_servers.engine_http import missing_extra
from agent_runtime.backends.vllm_servers.kv_event_lines import EventLine
from agent_runtime.errors import BackendError

if TYPE_CHECKING:
    import zmq

MAX_WAITING = 100_000
"""Messages ZMQ keeps for us: the publisher's own limit."""


@asynccontextmanager
async def zmq_event_lines() -> AsyncIterator[ZmqEventLines]:
    """Have ``EventLines`` until the context is left.

    Raises:
        ConfigError: pyzmq is not installed.
    """
    try:
        import zmq  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_extra("pyzmq") from error
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        yield ZmqEventLines(context)
    finally:
        context.destroy(linger=0)


class ZmqEventLines:
    """``EventLines`` over a ZMQ context."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context

    @contextmanager
    def subscribed(self, source: EventSource) -> Iterator[EventLine]:
        """Subscribe."""
        import zmq  # noqa: PLC0415 - an extra

        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, MAX_WAITING)
        socket.setsockopt_string(zmq.SUBSCRIBE, source.topic)
        with _connected(socket, source.endpoint):
            yield _Messages(socket)

    @contextmanager
    def replayed(self, endpoint: str, first: int) -> Iterator[EventLine]:
        """Ask for a replay."""
        import zmq  # noqa: PLC0415 - an extra

        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVHWM, 0)
        with _connected(socket, endpoint):
            socket.send_multipart([b"", first.to_bytes(SEQUENCE_BYTES, "big")])  # as a REQ would
            yield _Messages(socket)


class _Messages:
    """An ``EventLine``: what comes to a socket."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    async def received(self) -> list[bytes]:
        """Return the next message.

        ZMQ's descriptor becomes readable once for any number of messages; so it is waited for only
        after a receive that found nothing, which has looked at everything that came before.
        """
        import zmq  # noqa: PLC0415 - an extra

        while True:
            try:
                message: list[bytes] = self._socket.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                await anyio.wait_readable(self._socket.FD)
            else:
                await anyio.lowlevel.checkpoint()  # a busy feed must not starve the turns
                return message


@contextmanager
def _connected(socket: zmq.Socket[bytes], endpoint: str) -> Iterator[None]:
    import zmq  # noqa: PLC0415 - an extra

    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, 1)
    with socket:
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise BackendError(f"{endpoint} can't be connected to: {error}") from error
        yield
