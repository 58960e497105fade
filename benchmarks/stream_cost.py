"""What a streamed token costs in the gateway, and with openai's client in the same process.

    python benchmarks/stream_cost.py

A runner that gives one token a step stands in for the rack. Prints microseconds a token, the best
of four runs: the gateway alone (ASGI messages out), then through the in-process transport.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import openai
from starlette.applications import Starlette

from agent_runtime.gateway.app import create_app
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.turns import TurnProgress, TurnRequest
from scheduler.ids import SessionId

NUM_TOKENS, NUM_RUNS = 10_000, 4
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Plan the day."}],
    "max_tokens": NUM_TOKENS,
    "ignore_eos": True,
}


class OneTokenASTep:
    """A runner whose steps are due at once."""

    block_size_tokens = 16
    max_context_tokens = 1_000_000

    @asynccontextmanager
    async def open_turn(self, request: TurnRequest) -> AsyncIterator[AsyncIterator[TurnProgress]]:
        """Run a turn."""
        yield self._steps(request.num_output_tokens)

    async def _steps(self, num_tokens: int) -> AsyncIterator[TurnProgress]:
        for left in range(num_tokens - 1, -1, -1):
            await anyio.lowlevel.checkpoint()
            yield TurnProgress(1, 0, finished=left == 0)

    def close_session(self, session_id: SessionId) -> None:
        """Do nothing."""


async def gateway_alone(app: Starlette, fields: dict[str, Any]) -> None:
    """Send a request as ASGI messages and throw the answer away."""
    body = [json.dumps({**ASKED, **fields}).encode()]

    async def receive() -> dict[str, Any]:
        if not body:
            await anyio.sleep_forever()
        return {"type": "http.request", "body": body.pop(), "more_body": False}

    async def send(_: Any) -> None:  # noqa: ANN401 - ASGI's
        pass

    path = "/v1/chat/completions"
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)


async def with_client(app: Starlette) -> None:
    """Read a stream with openai's client."""
    async with httpx2.AsyncClient(transport=StreamingAsgiTransport(app), timeout=None) as http:
        client = openai.AsyncOpenAI(api_key="-", base_url="http://rack/v1", http_client=http)
        stream: Any = await client.chat.completions.create(
            model="m",
            messages=ASKED["messages"],
            max_tokens=NUM_TOKENS,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for _ in stream:
            pass


async def main() -> None:
    """Measure."""
    app = create_app(OneTokenASTep(), model="m")
    cases: dict[str, Callable[[], Awaitable[None]]] = {
        "gateway, streamed": lambda: gateway_alone(app, {"stream": True}),
        "gateway, streamed, n=3": lambda: gateway_alone(app, {"stream": True, "n": 3}),
        "gateway, streamed, logprobs": lambda: gateway_alone(
            app, {"stream": True, "logprobs": True, "top_logprobs": 3}
        ),
        "gateway, whole": lambda: gateway_alone(app, {}),
        "with openai's client, streamed": lambda: with_client(app),
    }
    for name, case in cases.items():
        best_s = float("inf")
        for _ in range(NUM_RUNS):
            began_s = time.perf_counter()
            await case()
            best_s = min(best_s, time.perf_counter() - began_s)
        num_tokens = NUM_TOKENS * (3 if "n=3" in name else 1)
        print(f"{name:32} {best_s / num_tokens * 1e6:6.1f} us a token")


if __name__ == "__main__":
    anyio.run(main)
