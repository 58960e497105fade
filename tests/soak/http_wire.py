"""HTTP over sockets that costs little: who soaks a server must not be slower than it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import anyio
import httptools
from anyio.abc import SocketStream

MAX_READ_BYTES = 1 << 16


class BrokeOffError(Exception):
    """A connection ended within an answer."""


@dataclass
class Message:
    """A request or an answer, as far as it is here; a parser calls the ``on_`` methods."""

    url: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    has_begun: bool = False
    is_complete: bool = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.has_begun = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class ClientConnection:
    """A connection to a port of this machine, one request at a time."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self.is_reusable = True

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(await anyio.connect_tcp("127.0.0.1", port))

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Ask, and read the answer to its end.

        Raises:
            BrokeOffError: The server closed the connection before.
        """
        await self.send(method, path, body)
        message, parser = await self._read(until_bytes=None)
        self.is_reusable = message.headers.get(b"connection") != b"close"
        return Answer(parser.get_status_code(), message.headers, bytes(message.body))

    async def ask_for_a_while(self, path: str, body: bytes, num_bytes: int) -> None:
        """Ask, read so many bytes of the answer's body, and hang up."""
        await self.send("POST", path, body)
        if num_bytes:
            await self._read(until_bytes=num_bytes)
        await self.close()

    async def send(self, method: str, path: str, body: bytes) -> None:
        head = f"{method} {path} HTTP/1.1\r\nhost: soak\r\ncontent-length: {len(body)}\r\n\r\n"
        await self.send_raw(head.encode() + body)

    async def send_raw(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokeOffError("the connection was closed as it was asked") from error

    async def close(self) -> None:
        self.is_reusable = False
        await self._stream.aclose()

    async def _read(
        self, *, until_bytes: int | None
    ) -> tuple[Message, httptools.HttpResponseParser]:
        message = Message()
        parser = httptools.HttpResponseParser(message)
        while not message.is_complete:
            try:
                parser.feed_data(await self._stream.receive(MAX_READ_BYTES))
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                self.is_reusable = False
                raise BrokeOffError(f"after {len(message.body)} bytes of a body") from error
            if until_bytes is not None and len(message.body) >= until_bytes:
                break
        return message, parser
