"""A client's connection where httptools is not installed: uvicorn's on h11, with a deadline.

h11 bounds heads by itself. What it lacks is the end of patience: a client that takes too long to
say what it wants is hung up on, as ``ClientConnection`` does. And where a body has a length and
chunks, of which h11 believes the chunks, nothing behind it is taken for a request: a proxy that
believes the length may have let somebody else's body through (RFC 9112, 6.1).
"""

from __future__ import annotations

import asyncio

import h11
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

_AMBIGUOUS = {b"content-length", b"transfer-encoding"}
REQUEST_S = 60.0
"""Within which a request must be here, body and all, and the first of a connection begin."""


class PlainConnection(H11Protocol):
    """One connection of a client.

    Invariant: ``_deadline`` is set while a request is awaited that has begun, or is the first.
    """

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._deadline: asyncio.TimerHandle | None = None
        self._has_begun = False
        super().connection_made(transport)
        self._watch()

    @override
    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        super().data_received(data)

    @override
    def handle_events(self) -> None:
        super().handle_events()
        if {name for name, _ in self.headers or ()} >= _AMBIGUOUS:
            self.cycle.keep_alive = False
        self._watch()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(is_awaited=False)
        super().connection_lost(exc)

    def _watch(self) -> None:
        state = self.conn.their_state
        begins = state is h11.IDLE and (bool(self.conn.trailing_data[0]) or not self._has_begun)
        self._set_deadline(is_awaited=begins or state is h11.SEND_BODY)

    def _set_deadline(self, *, is_awaited: bool) -> None:
        if not is_awaited and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif is_awaited and self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)
