"""``/`` and ``/view``: the rack to be watched in a browser, or by ``panjiu top``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_runtime.errors import UnknownTurnError
from agent_runtime.gateway.leaving import leave_on_disconnect
from agent_runtime.gateway.openapi import Operation
from agent_runtime.gateway.routes import Served
from agent_runtime.gateway.turn_stream import STREAM_HEADERS
from agent_runtime.gateway.view_access import ViewAccess
from agent_runtime.rack_view.kept_stories import MAX_LATEST_STORIES
from agent_runtime.rack_view.live_view import RackView
from agent_runtime.rack_view.messages import encoded
from agent_runtime.rack_view.page import dashboard_page

FRAME_EVERY_S = 0.5
COMMENT_EVERY = 30
"""Frames; a comment keeps what counts them awake though it should drop events that it knows."""

PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
FORBIDDEN, UNAVAILABLE = 403, 503


class ViewEnd:
    """Lets the streams of a view end before the server waits for them."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def end(self) -> None:
        """End them."""
        self._event.set()

    async def came_within(self, seconds: float) -> bool:
        """Wait so long at the most; return whether they are to end."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        return self._event.is_set()


@dataclass
class ViewRoutes:
    """The routes.

    Attributes:
        view: What is watched.
        access: Who may see it.
        end: When streams end.
    """

    view: RackView
    access: ViewAccess
    end: ViewEnd

    @cached_property
    def page(self) -> str:
        """The page, which is the same for everybody."""
        return dashboard_page()

    async def show(self, _: Request) -> Response:
        """Answer ``GET /``."""
        return HTMLResponse(self.page, headers=PAGE_HEADERS)

    async def stream(self, request: Request) -> Response:
        """Answer ``GET /view/stream``.

        Raises:
            AuthenticationError: The key is missing or wrong.
            NotAllowedError: It is a tenant's.
        """
        self.access.check(request.headers)
        if request.method == "HEAD":
            return Response(headers=STREAM_HEADERS)
        return ViewStream(self.view, self.end)

    async def turn(self, request: Request) -> Response:
        """Answer ``GET /view/turns/{turn_id}``.

        Raises:
            AuthenticationError: The key is missing or wrong.
            NotAllowedError: It is a tenant's.
            UnknownTurnError: It is not known, or not any more.
        """
        self.access.check(request.headers)
        turn_id = request.path_params["turn_id"]
        story = self.view.story(turn_id)
        if story is None:
            raise UnknownTurnError(
                f"turn {turn_id!r} is not known; of those that are over, the last "
                f"{MAX_LATEST_STORIES:,} are kept",
                param="turn_id",
            )
        return Response(encoded(story), media_type="application/json")


class ViewStream(Response):
    """The messages of a view as server-sent events, until the client leaves or the layout changes.

    It writes no faster than it is read: a viewer that is behind gets all that changed in one frame.

    Args:
        view: What is watched.
        end: When it ends.
    """

    def __init__(self, view: RackView, end: ViewEnd) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._view, self._end = view, end

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._view.viewer():
            async with leave_on_disconnect(scope, receive):
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                await self._send_all(send)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        layout = self._view.layout()
        await _send_event(send, b": panjiu's view of the rack\n\n", encoded(layout))
        read: int | None = None
        num_sent = 0
        while self._view.layout() == layout:
            now_s = anyio.current_time()
            moment = int(now_s / FRAME_EVERY_S)
            frame, read = self._view.frame(read, moment)
            num_sent += 1
            comment = b": still here\n\n" if num_sent % COMMENT_EVERY == 0 else b""
            await _send_event(send, comment, frame)
            if await self._end.came_within((moment + 1) * FRAME_EVERY_S - anyio.current_time()):
                return


async def _send_event(send: Send, comment: bytes, data: bytes) -> None:
    body = b"%bdata: %b\n\n" % (comment, data)
    await send({"type": "http.response.body", "body": body, "more_body": True})


def view_routes(routes: ViewRoutes) -> list[Served]:
    """Return them as they are served."""
    return [
        Served(
            Operation(
                "get", "/", "The rack, to be watched", guarded=False, media_types=("text/html",)
            ),
            routes.show,
        ),
        Served(
            Operation(
                "get",
                "/view/stream",
                "What happens on the rack, as it happens",
                media_types=("text/event-stream",),
                more_statuses=(FORBIDDEN, UNAVAILABLE),
            ),
            routes.stream,
        ),
        Served(
            Operation(
                "get",
                "/view/turns/{turn_id:path}",
                "What became of a turn, and why",
                more_statuses=(FORBIDDEN,),
            ),
            routes.turn,
        ),
    ]
