"""A response of server-sent events that lives as long as its turns and its client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_runtime.errors import BackendError
from agent_runtime.gateway.error_mapping import runtime_error_response


class TurnStream(Response):
    """Server-sent events; ends the turns when the client leaves or everything is sent.

    Args:
        events: Of the answer, encoded.
        stack: What is to be left at the end: the turns.
        headers: Of the response.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        stack: AsyncExitStack,
        headers: dict[str, str],
    ) -> None:
        self._events, self._stack = events, stack
        super().__init__(headers={**headers, "cache-control": "no-cache"})
        self.raw_headers = [
            *((k, v) for k, v in self.raw_headers if k not in {b"content-length", b"content-type"}),
            (b"content-type", b"text/event-stream; charset=utf-8"),
        ]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack, aclosing(self._events) as events:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async with leave_on_disconnect(receive):
                try:
                    async for event in events:
                        await _send_body(send, event, more=True)
                except BackendError as error:
                    body = bytes(runtime_error_response(error).body)
                    await _send_body(send, b"data: " + body + b"\n\n", more=True)
                await _send_body(send, b"data: [DONE]\n\n", more=False)


async def _send_body(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


@asynccontextmanager
async def leave_on_disconnect(receive: Receive) -> AsyncIterator[anyio.Event]:
    """Cancel what runs inside when the client goes away; the event then says so."""
    left = anyio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield left
        tasks.cancel_scope.cancel()
