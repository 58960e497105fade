"""An engine of words in a process of its own, so that replies can be checked word by word.

python -m tests.kills.word_engine PORT EVENTS_PORT REPLAY_PORT SALT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import anyio
import uvicorn
import zmq
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.chaos.sim_engine import SimEngine, SimReply

TOKEN_S = 0.01
NUM_BLOCKS = 2_000
END_OF_REPLAY = (-1).to_bytes(8, "big", signed=True)


class WordServer:
    """An ASGI app around an engine."""

    def __init__(self, engine: SimEngine, events_port: int, replay_port: int) -> None:
        self._engine = engine
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._publisher, self._router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        self._publisher.bind(f"tcp://127.0.0.1:{events_port}")
        self._router.bind(f"tcp://127.0.0.1:{replay_port}")
        source = {"endpoint": f"tcp://*:{events_port}", "replay_endpoint": f"tcp://*:{replay_port}"}
        self._sources = {"0": {**source, "topic": ""}}
        engine.on_publish.append(lambda _, batch: self._publisher.send_multipart(batch))
        posted = [
            Route(path, self._ask, methods=["POST"])
            for path in ("/v1/chat/completions", "/v1/responses")
        ]
        self.app = Starlette(
            routes=[
                *posted,
                Route("/kv_event_sources", self._where),
                Route("/{path:path}", self._page),
            ]
        )

    async def serve_replays(self) -> None:
        """Repeat events to those who missed some, until cancelled."""
        while True:
            try:
                client, _, first = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                await anyio.sleep(0.01)
                continue
            for batch in self._engine.batches[int.from_bytes(first, "big") :]:
                self._router.send_multipart([client, b"", *batch])
            self._router.send_multipart([client, b"", b"", END_OF_REPLAY, b""])

    async def _where(self, _: Request) -> Response:
        return JSONResponse(self._sources)

    async def _page(self, request: Request) -> Response:
        status, page = self._engine.page(request.url.path)
        return Response(page, status, media_type="application/json")

    async def _ask(self, request: Request) -> Response:
        body = await request.json()
        reply = self._engine.ask(request.url.path, body, TOKEN_S)
        if reply.status != 200 or not body.get("stream"):
            data = b"".join([chunk async for chunk in _chunks(reply)])
            return Response(data, reply.status, media_type="application/json")
        return StreamingResponse(_chunks(reply), media_type="text/event-stream")


async def _chunks(reply: SimReply) -> AsyncIterator[bytes]:
    try:
        while chunk := await reply.next_bytes():
            yield chunk
    finally:
        reply.close()


async def main() -> None:
    """Serve until killed."""
    port, events_port, replay_port, salt = map(int, sys.argv[1:])
    server = WordServer(SimEngine(salt, NUM_BLOCKS), events_port, replay_port)
    config = uvicorn.Config(server.app, port=port, log_level="error", lifespan="off", ws="none")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve_replays)
        await uvicorn.Server(config).serve()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
