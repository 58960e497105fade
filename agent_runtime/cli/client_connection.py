"""A client's connection: uvicorn's on httptools, with two things done for less and one more.

It tells when the client goes, so that no task has to wait for that (see ``Departure``), and sends
the head of a response together with what comes right after: uvicorn alone makes two system calls of
it, and wakes the client twice. A client that takes too long to say what it wants is hung up on, as
many of them would use up all connections there can be, and so is one whose headers have no end: the
parser keeps them.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agent_runtime.cli.plain_connection import REQUEST_S
from agent_runtime.client_departure import EXTENSION, Departure

HEAD_BEGINS = b"HTTP/1.1 "
MAX_HEAD_BYTES = 256 << 10
MAX_UNREAD_BYTES = 512 << 10
"""Of a body that its route has not taken yet; beyond, its client waits. An agent's context comes to
about as much, and to stop and go on costs system calls and another turn of the loop each time."""
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class HeadJoiningTransport:
    """A transport that holds a response's head until the next write, or the end of the loop's turn.

    Args:
        transport: Writes.

    Invariant: ``_flushing`` is scheduled while ``_head`` is held.
    """

    __slots__ = ("_flushing", "_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._flushing: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Write in order."""
        if self._head:
            head, self._head = self._head, b""
            if self._flushing is not None:
                self._flushing.cancel()
                self._flushing = None
            self._transport.write(head + data)
        elif data.startswith(HEAD_BEGINS):
            self._head = data
            self._flushing = self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a transport has
        return getattr(self._transport, name)

    def _flush(self) -> None:
        self._flushing = None  # it leads here
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class ClientConnection(HttpToolsProtocol):
    """One connection of a client."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._departure = Departure()
        self._deadline = self.loop.call_later(REQUEST_S, transport.abort)
        self._is_in_head, self._num_head_bytes = False, 0
        super().connection_made(cast("asyncio.Transport", HeadJoiningTransport(transport)))

    @override
    def on_message_begin(self) -> None:
        self._deadline.cancel()
        self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)
        self._is_in_head, self._num_head_bytes = True, 0
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {EXTENSION: self._departure}

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if not cycle.response_complete:
            # Most bodies come at once, and need not be copied; uvicorn does twice.
            cycle.body = cast("bytearray", cycle.body + body if cycle.body else body)
            if len(cycle.body) > MAX_UNREAD_BYTES:
                self.flow.pause_reading()
            cycle.message_event.set()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()

    @override
    def on_message_complete(self) -> None:
        self._deadline.cancel()
        super().on_message_complete()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._unset_keepalive_if_required()  # of one that was reset, too, or it would stay so long
        super().connection_lost(exc)
        self._departure.happen()
