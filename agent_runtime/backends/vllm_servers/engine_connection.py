"""One HTTP/1.1 connection to an engine, on httptools: one request at a time, kept alive.

A body is read from the socket only as it is asked for: while more than ``MAX_BUFFERED_BYTES`` wait
here, the socket is not read. Whatever is not HTTP as it should be ends the connection.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - a protocol: anyio's streams have a task woken twice for every read
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from typing_extensions import override

if TYPE_CHECKING:
    import httptools

MAX_BUFFERED_BYTES = 64 << 10
MAX_HEAD_BYTES = 256 << 10
"""Of what is no body: an answer's head, trailers, the sizes of chunks that bring nothing."""

SMALL_BODY_BYTES = 16 << 10
"""Up to here one write with a copy costs less than two without."""

FIRST_FINAL_STATUS = 200
_WANTED = frozenset(
    {b"content-type", b"retry-after", b"content-length", b"transfer-encoding", b"location"}
)


class ConnectionBrokeError(Exception):
    """The connection ended before the answer did.

    Attributes:
        began: Whether a byte of the answer had come.
    """

    def __init__(self, problem: str, *, began: bool) -> None:
        self.began = began
        super().__init__(problem)


class EngineConnection(asyncio.Protocol):
    """A connection; made by ``create_connection``.

    Args:
        parser: Makes a parser of answers that tells the protocol given.
        on_lost: Called once it is closed.

    Attributes:
        status: Of the answer, once ``ask`` has returned.
        headers: Of it, the few that are of use here; by lower-case name.
        is_complete: Whether all of the answer has come.
        idle_since_s: For whoever keeps it.

    Invariants: ``_problem`` is set once it has broken, and it is never used again; ``_chunks`` are
        those of the body that nobody has taken yet.
    """

    def __init__(
        self,
        parser: Callable[[EngineConnection], httptools.HttpResponseParser],
        on_lost: Callable[[EngineConnection], None],
    ) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.is_complete = True
        self.idle_since_s = 0.0
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        # The parser looks its callbacks up when it is made; this one has no frame of its own.
        self.on_body = self._chunks.append
        self._parser: httptools.HttpResponseParser | None = parser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._problem = ""
        self._has_head = self._has_begun = self._keeps_alive = self._is_paused = False
        self._num_buffered = self._num_without_body = 0  # bytes

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent."""
        transport = self._transport
        return (
            self.is_complete
            and self._keeps_alive
            and not self._problem
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0  # an early answer: the request goes on
        )

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request; return once the head of its answer has come.

        Raises:
            ConnectionBrokeError: It broke before.
        """
        transport = self._transport
        if transport is None or self._problem or transport.is_closing():
            raise ConnectionBrokeError(self._problem or "it was closed", began=False)
        self._chunks.clear()
        self.headers = {}  # whoever read the answer before may still look at its own
        self.is_complete = self._has_head = self._has_begun = self._keeps_alive = False
        self._num_buffered = self._num_without_body = 0
        if len(body) <= SMALL_BODY_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        while not self._has_head:
            if self._problem:
                raise ConnectionBrokeError(self._problem, began=self._has_begun)
            await self._news()

    async def next_bytes(self) -> bytes:
        """Return what has come of the body since, at least a byte; nothing at its end.

        Raises:
            ConnectionBrokeError: It broke before the end.
        """
        while not self._chunks:
            if self.is_complete:
                return b""
            if self._problem:
                raise ConnectionBrokeError(self._problem, began=True)
            self._go_on_reading()
            await self._news()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._num_buffered = 0
        return data

    def abort(self, problem: str = "it was closed here") -> None:
        """Close it at once, whatever is under way."""
        self._problem = self._problem or problem
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def prepare_to_idle(self) -> None:
        """Drop what nobody took of a complete answer, and notice when the engine closes."""
        self._chunks.clear()
        self._num_buffered = 0
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    async def _news(self) -> None:
        """Return once something has changed."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    @override
    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self.is_complete or parser is None:
            self.abort("it said something that nobody had asked for")
            return
        self._has_begun = True
        try:
            parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - httptools is an extra, and all its errors end it
            self.abort(f"its answer is not HTTP: {str(error) or type(error).__name__}")
            return
        if self._chunks:
            self._num_without_body = 0
            self._num_buffered += len(data)
            if self._num_buffered > MAX_BUFFERED_BYTES and not self._is_paused:
                self._pause()
        elif not self.is_complete:
            self._num_without_body += len(data)
            if self._num_without_body > MAX_HEAD_BYTES:
                self.abort(f"its answer has a head of more than {MAX_HEAD_BYTES} bytes")
        if self._has_head:
            self._wake()

    def _pause(self) -> None:
        if self._transport is not None and not self.is_complete:
            self._is_paused = True
            self._transport.pause_reading()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_complete and self._ends_with_connection() and exc is None:
            self.is_complete = True
        self._problem = self._problem or (str(exc) if exc else "") or "the engine closed it"
        self._parser = self._transport = None  # they refer to this one, too
        self._wake()
        self._on_lost(self)

    def _ends_with_connection(self) -> bool:
        return (
            self._has_head
            and not self._problem
            and b"content-length" not in self.headers
            and b"chunked" not in self.headers.get(b"transfer-encoding", b"").lower()
        )

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self.is_complete:
            self._keeps_alive = False  # it answers what was not asked
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser: a header, or a trailer."""
        lower = name.lower()
        if lower in _WANTED and not self._has_head:
            before = self.headers.get(lower)
            self.headers[lower] = value if before is None else before + b", " + value

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._parser is None:
            return
        self.status = self._parser.get_status_code()
        if self.status >= FIRST_FINAL_STATUS:
            self._has_head = True
        else:
            self.headers = {}  # 100 and its like: the answer is still to come

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._has_head and self._parser is not None:
            self.is_complete = True
            self._keeps_alive = bool(self._parser.should_keep_alive())
