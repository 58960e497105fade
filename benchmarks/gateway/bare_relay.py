"""The least that a gateway in Python can do: no routes, nothing read, nothing known, no scheduling.

    python -m benchmarks.gateway.bare_relay --port 8000 --engine http://HOST:PORT [--engine ...]

The same server, loop and connections to engines as ``panjiu serve``, and nothing else: whatever is
posted goes to the engines in turn, unread, and so do their answers.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import anyio
import uvicorn
from starlette.types import Receive, Scope, Send

from agent_runtime.backends.vllm_servers.engine_connections import (
    EngineConnections,
    open_engine_http,
)
from agent_runtime.cli.rack_server import endpoint_config


class BareRelay:
    """The ASGI app.

    Args:
        http: Reaches the engines.
        engines: Whose turn it is, without end.
    """

    def __init__(self, http: EngineConnections, engines: Iterator[str]) -> None:
        self._http, self._engines = http, engines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay one request."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        reply = await self._http.send("POST", next(self._engines) + scope["path"], bytes(body), {})
        data = await reply.next_bytes()
        headers = [(b"content-type", reply.content_type.encode("latin-1"))]
        if reply.is_at_end:
            headers.append((b"content-length", b"%d" % len(data)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        while not reply.is_at_end:
            await send({"type": "http.response.body", "body": data, "more_body": True})
            data = await reply.next_bytes()
        await send({"type": "http.response.body", "body": data, "more_body": False})
        reply.close()


async def serve(port: int, engines: list[str]) -> None:
    """Serve until the process is ended."""
    async with open_engine_http() as http:
        config = endpoint_config(BareRelay(http, itertools.cycle(engines)))
        config.host, config.port = "127.0.0.1", port
        await uvicorn.Server(config).serve()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--engine", action="append", required=True, metavar="URL")
    args = parser.parse_args()
    anyio.run(serve, args.port, args.engine, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main()
