"""A client's connection that costs little: one request at a time, kept alive."""

from __future__ import annotations

import asyncio

import httptools
from typing_extensions import override

OK = 200


class AnswerError(Exception):
    """A server refused, or went away."""


class HttpConnection(asyncio.Protocol):
    """One connection; see ``connect``.

    Attributes:
        num_events: Server-sent events of the latest answer.
    """

    def __init__(self) -> None:
        self._answered: asyncio.Future[int] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self.num_events = 0

    @classmethod
    async def connect(cls, port: int) -> HttpConnection:
        """Return a connection to a port of this machine."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    async def send(self, request: bytes) -> bytes:
        """Send a request, HTTP and all; return the body of its answer, empty if it is a stream.

        Raises:
            AnswerError: Its status is not 200, or the connection broke.
        """
        self._answered = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()
        self.num_events = 0
        self._transport.write(request)
        status = await self._answered
        if status != OK:
            raise AnswerError(f"status {status}: {bytes(self._body[:500])!r}")
        return bytes(self._body)

    def close(self) -> None:
        """Close it."""
        self._transport.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(AnswerError(f"the connection broke: {exc}"))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        events = body.count(b"data: ")
        if events:
            self.num_events += events
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(self._parser.get_status_code())
