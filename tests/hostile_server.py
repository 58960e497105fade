"""A server on loopback that says what it is told to, byte by byte, whatever it is asked."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener


@dataclass
class HostileConnection:
    """One connection, served.

    Attributes:
        number: From 0, in the order in which they came.
        requests: Read here, head and body.
    """

    stream: ByteStream
    number: int
    requests: list[bytes]

    async def request(self) -> bytes:
        """Return the next request."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            body += await self.stream.receive()
        self.requests.append(head + b"\r\n\r\n" + body)
        return head

    async def say(self, *pieces: bytes) -> None:
        """Send each piece by itself."""
        for piece in pieces:
            await self.stream.send(piece)
            await anyio.sleep(0.002)

    async def until_closed(self) -> None:
        """Return once the other side has closed."""
        with anyio.fail_after(10):
            try:
                while True:
                    await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return


@dataclass
class HostileServer:
    url: str
    requests: list[bytes] = field(default_factory=list)
    num_connections: int = 0
    closed: anyio.Event = field(default_factory=anyio.Event)
    """For scripts to set."""


@asynccontextmanager
async def hostile_server(
    serve: Callable[[HostileConnection, HostileServer], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[HostileServer]:
    """Serve every connection by a script; it is closed when the script returns."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's
    server = HostileServer(f"{'http' if tls is None else 'https'}://127.0.0.1:{port}")

    async def handle(stream: ByteStream) -> None:
        connection = HostileConnection(stream, server.num_connections, server.requests)
        server.num_connections += 1
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # the other side left
                await serve(connection, server)

    async with anyio.create_task_group() as tasks:
        if tls is None:
            tasks.start_soon(listener.serve, handle)
        else:
            tasks.start_soon(TLSListener(listener, tls, standard_compatible=False).serve, handle)
        yield server
        tasks.cancel_scope.cancel()
    await listener.aclose()
