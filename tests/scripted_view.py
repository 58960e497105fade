"""A server with the page and a view that says what a test tells it to.

``python -m tests.scripted_view`` prints its port. ``POST /script`` with {"status", "error"} makes
the view answer so from then on, with {"key"} want that key, with {"say": [...]} send lines to
whoever reads the stream and to whoever comes, with {"forget": true} drop what was said, with
{"hang_up": true} end the streams.
"""

import json
import socket
import sys
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime.rack_view.page import dashboard_page
from tests.rack_messages import story


class ScriptedView:
    """What is said, and to whom."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.status, self.error, self.key = 200, "", ""
        self.generation = 0
        self.news = anyio.Event()

    async def page(self, request: Request) -> Response:
        return HTMLResponse(dashboard_page())

    async def script(self, request: Request) -> Response:
        told: dict[str, Any] = await request.json()
        self.status, self.error = told.get("status", 200), told.get("error", "")
        self.key = told.get("key", self.key)
        if told.get("forget"):
            self.said = []
        self.said += told.get("say", [])
        self.generation += bool(told.get("hang_up"))
        self.news.set()
        self.news = anyio.Event()
        return JSONResponse({})

    async def stream(self, request: Request) -> Response:
        return self._refusal(request) or StreamingResponse(
            self._events(), media_type="text/event-stream"
        )

    async def turn(self, request: Request) -> Response:
        turn = request.path_params["turn"]
        if turn.startswith("forgotten"):
            return JSONResponse({"error": {"message": f"{turn} is no longer kept"}}, 404)
        return self._refusal(request) or JSONResponse(story(turn, "agent-1"))

    def _refusal(self, request: Request) -> Response | None:
        if self.status != 200:
            return JSONResponse({"error": {"message": self.error}}, self.status)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "this view wants a key"}}, 401)
        return None

    async def _events(self) -> Any:
        generation, told = self.generation, 0
        yield ": here\n\n"
        while generation == self.generation:
            for line in self.said[told:]:
                yield f"data: {line}\n\n"
            told = len(self.said)
            await self.news.wait()


def main() -> None:
    view = ScriptedView()
    app = Starlette(
        routes=[
            Route("/", view.page),
            Route("/script", view.script, methods=["POST"]),
            Route("/view/stream", view.stream),
            Route("/view/turns/{turn:path}", view.turn),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
