"""What a streamed token costs in the gateway, and with openai's client in the same process.

    python -m benchmarks.virtual_time.gateway_tokens

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
from agent_runtime.turns import PlacementReason, TurnPlacement, TurnProgress, TurnRequest
from scheduler.events import GapHint
from scheduler.ids import ReplicaId, SessionId
from scheduler.session_view import SessionView

NUM_TOKENS, NUM_RUNS = 10_000, 4
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Plan the day."}],
    "max_tokens": NUM_TOKENS,
    "ignore_eos": True,
}


class _Countdown:
    """A turn whose tokens come one a checkpoint."""

    def __init__(self, num_tokens: int) -> None:
        self._num_left = num_tokens

    @property
    def placement(self) -> TurnPlacement:
        """The first replica, at once."""
        return TurnPlacement(ReplicaId(0), 0.0, 0, PlacementReason.NEW)

    def __aiter__(self) -> _Countdown:
        return self

    async def __anext__(self) -> TurnProgress:
        if not self._num_left:
            raise StopAsyncIteration
        await anyio.lowlevel.checkpoint()
        self._num_left -= 1
        return TurnProgress(1, 0, finished=self._num_left == 0)

    def end_output(self, num_tokens: int) -> None:
        """Stop at so many tokens from now."""
        self._num_left = min(self._num_left, num_tokens)


class OneTokenAStep:
    """A runner whose steps are due at once."""

    block_size_tokens = 16
    max_context_tokens = 1_000_000

    @asynccontextmanager
    async def open_turn(self, request: TurnRequest) -> AsyncIterator[_Countdown]:
        """Run a turn."""
        yield _Countdown(request.num_output_tokens)

    def close_session(self, session_id: SessionId) -> None:
        """Do nothing."""

    def now_s(self) -> float:
        """Return the loop's time."""
        return anyio.current_time()

    def hint_gap(self, session_id: SessionId, gap: GapHint) -> None:
        """Do nothing."""

    def session_view(self, session_id: SessionId) -> SessionView | None:  # noqa: ARG002 - protocol
        """Know nothing."""
        return None


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
    app = create_app(OneTokenAStep(), model="m")
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
