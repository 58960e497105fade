"""A response of server-sent events that lives as long as its turns and its client.

It begins when the turns run, so that errors before that are HTTP statuses. Turns that are held for
longer than a short grace let it begin earlier; comments then keep the connection alive.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - a timer without a task: most streams don't live to see it
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_runtime.errors import BackendError, BackendStoppedError, RequestError
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.leaving import AccompaniedLeaving, leave_accompanied
from agent_runtime.occurrence import Occurrence

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """How a stream behaves while its turns are held.

    Attributes:
        grace_s: So long, errors are still HTTP statuses.
        comment_every_s: From then on a comment comes this often.
    """

    grace_s: float = 15.0
    comment_every_s: float = 5.0


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """A stream whose turns run.

    Attributes:
        events: Of the answer, encoded.
        headers: What is known only now.
        note: The same as a comment, for a response that began before.
    """

    events: AsyncGenerator[bytes, None]
    headers: Mapping[str, str] = field(default_factory=dict)
    note: bytes = b""


class StreamEnds(msgspec.Struct, frozen=True):
    """How a stream ends that does not end well.

    Attributes:
        failure: The events for an error.
        response: The response for an error before it began.
        cancelled: Set by whoever ends the stream beside its client; None where nobody can.
        cut_short: The events that end it then; also called when the client leaves.
        cut_short_whole: The same for an answer in one piece.
    """

    failure: Callable[[RequestError | BackendError], bytes]
    response: Callable[[RequestError | BackendError], Response]
    cancelled: Occurrence | None = None
    cut_short: Callable[[], bytes] | None = None
    cut_short_whole: Callable[[], Response] | None = None


class TurnStream(Response):
    """Server-sent events; ends the turns when the client leaves or everything is sent.

    Args:
        open_stream: Has the turns run, leaving in the stack what is to be left at the end.
        ends: How it may end.
        headers: Of the response.
        hold: How it behaves while turns are held.
        closing: Of the endpoint.
    """

    def __init__(
        self,
        open_stream: Callable[[AsyncExitStack], Awaitable[OpenedStream]],
        ends: StreamEnds,
        headers: Mapping[str, str],
        hold: HoldTerms,
        closing: Closing,
    ) -> None:
        self._open_stream, self._ends, self._hold = open_stream, ends, hold
        self._closing = closing
        super().__init__(headers={**headers, **STREAM_HEADERS})
        del self.headers["content-length"]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outlet = _Outlet(send, self.raw_headers)
        refusal: RequestError | BackendError | None = None
        async with (
            leave_accompanied(scope, receive, self._ends.cancelled) as leaving,
            AsyncExitStack() as stack,
        ):
            stack.enter_context(self._closing.under_way(leaving.stop))
            comments = _Comments(outlet, self._hold, leaving)
            stack.callback(comments.withdraw)
            try:
                opened = await self._open_stream(stack)
            except (RequestError, BackendError) as error:
                refusal = error.with_traceback(None)  # or it would lead to itself
                await comments.end()
            else:
                await comments.end()
                await self._pass_on(opened, outlet)
        if leaving.was_stopped:
            refusal = BackendStoppedError()
        if leaving.client_left:
            if self._ends.cut_short is not None:
                self._ends.cut_short()
        elif refusal is not None and not outlet.started:
            await self._ends.response(refusal)(scope, receive, send)
        elif refusal is not None:
            await outlet.end(self._ends.failure(refusal))
        elif leaving.was_cancelled and self._ends.cut_short is not None:
            await outlet.end(self._ends.cut_short())
        else:
            await outlet.end(b"")

    async def _pass_on(self, opened: OpenedStream, outlet: _Outlet) -> None:
        if outlet.started:
            await outlet.send(opened.note)
        outlet.add_headers(opened.headers)
        async with aclosing(opened.events) as events:
            try:
                async for event in events:
                    await outlet.send(event)
            except BackendError as error:
                await outlet.send(self._ends.failure(error))


class _Outlet:
    """What is sent, once it begins."""

    __slots__ = ("_headers", "_send", "started")

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.started = False

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Have these sent too; too late once it has begun."""
        self._headers += [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]

    async def send(self, body: bytes) -> None:
        """Send events, and before the first ones that it begins."""
        if not self.started:
            await self._begin()
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes) -> None:
        """Send the last ones."""
        if not self.started:
            await self._begin()
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _begin(self) -> None:
        self.started = True
        start = {"type": "http.response.start", "status": 200, "headers": self._headers}
        await self._send(start)


class _Comments:
    """Keeps a connection alive while turns are held: a comment after the grace, and then again.

    Most turns are not held for long, so the task that sends them begins with the first.

    Invariant: no comment is under way once ``end`` has returned.
    """

    __slots__ = ("_has_ended", "_hold", "_outlet", "_sent", "_since_s", "_timer")

    def __init__(self, outlet: _Outlet, hold: HoldTerms, leaving: AccompaniedLeaving) -> None:
        self._outlet, self._hold = outlet, hold
        self._since_s = anyio.current_time()
        self._sent: anyio.Event | None = None  # of one that is under way
        self._has_ended = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(hold.grace_s, leaving.accompany, self._send_all)

    def withdraw(self) -> None:
        """Begin no other; one may be under way."""
        self._has_ended = True
        self._timer.cancel()

    async def end(self) -> None:
        """Send no more."""
        self.withdraw()
        if self._sent is not None:
            await self._sent.wait()

    async def _send_all(self) -> None:
        while not self._has_ended:
            self._sent = anyio.Event()
            held_s = anyio.current_time() - self._since_s
            await self._outlet.send(b": held %d s\n\n" % held_s)
            self._sent.set()
            self._sent = None
            await anyio.sleep(self._hold.comment_every_s)
