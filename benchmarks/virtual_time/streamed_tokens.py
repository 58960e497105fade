"""What a streamed token costs on its way through the in-process transport.

    python -m benchmarks.virtual_time.streamed_tokens

A bare app streams a server-sent event every 20 ms of virtual time to each client: first to clients
that read lines with httpx2, then to openai's. Then the whole of it: openai's clients, our endpoint
and the emulated rack. TTFT as the clients see it is printed beside what it must be.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import httpx2
import numpy as np
import openai
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop, World
from benchmarks.virtual_time.emulated import emulated_service

TTFT_S, ITL_S = 0.2, 0.02
CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":0,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}\n\n'
)


@dataclass(frozen=True, slots=True)
class Streamed:
    """Microseconds of wall time a token, and the mean TTFT that clients saw."""

    us_per_token: float
    ttft_s: float


def bare_app(num_tokens: int) -> Starlette:
    """Return an app that streams made-up chunks."""

    async def chat(request: Request) -> StreamingResponse:
        await request.body()

        async def events() -> AsyncIterator[bytes]:
            await anyio.sleep(TTFT_S)
            for _ in range(num_tokens):
                yield CHUNK
                await anyio.sleep(ITL_S)
            yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


Reader = Callable[[httpx2.AsyncClient, int], Awaitable[float]]


async def read_lines(http: httpx2.AsyncClient, _: int) -> float:
    """Read a stream as lines; return its TTFT."""
    began_s, first_s = anyio.current_time(), -1.0
    async with http.stream("POST", "/v1/chat/completions", json={}) as response:
        async for line in response.aiter_lines():
            if line and first_s < 0:
                first_s = anyio.current_time()
    return first_s - began_s


def read_with_openai(num_tokens: int) -> Reader:
    """Return a reader that reads with openai's client."""

    async def read(http: httpx2.AsyncClient, number: int) -> float:
        client = openai.AsyncOpenAI(
            api_key="-", base_url="http://rack/v1", http_client=http, max_retries=0
        )
        began_s, first_s = anyio.current_time(), -1.0
        stream = await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": f"agent {number}"}],
            stream=True,
            max_tokens=num_tokens,
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content and first_s < 0:
                first_s = anyio.current_time()
        return first_s - began_s

    return read


def stream(
    app: AsgiApp,
    read: Reader,
    *,
    num_clients: int,
    num_tokens: int,
    clock: VirtualClock | None = None,
    world: World | None = None,
) -> Streamed:
    """Let every client read one stream."""
    ttfts_s: list[float] = []

    @asynccontextmanager
    async def client() -> AsyncIterator[httpx2.AsyncClient]:
        transport = StreamingAsgiTransport(app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://rack", timeout=None
        ) as http:
            yield http

    async def main() -> None:
        async with client() as http, anyio.create_task_group() as tasks:
            for number in range(num_clients):
                tasks.start_soon(one, http, number)

    async def one(http: httpx2.AsyncClient, number: int) -> None:
        ttfts_s.append(await read(http, number))

    began_s = time.perf_counter()
    anyio.run(
        main,
        backend_options={"loop_factory": lambda: VirtualTimeLoop(clock=clock, world=world)},
    )
    wall_s = time.perf_counter() - began_s
    return Streamed(wall_s / (num_clients * num_tokens) * 1e6, float(np.mean(ttfts_s)))


def main() -> None:
    """Print all three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    sizes = {"num_clients": args.clients, "num_tokens": args.tokens}
    app, with_openai = bare_app(args.tokens), read_with_openai(args.tokens)
    print(f"{args.clients} clients x {args.tokens} tokens; us of wall time a token")
    for name, streamed in (
        ("httpx2, bare app", stream(app, read_lines, **sizes)),
        ("openai, bare app", stream(app, with_openai, **sizes)),
    ):
        print(f"{name:<18} {streamed.us_per_token:6.0f}   TTFT {streamed.ttft_s:.5f} s ({TTFT_S})")
    clock = VirtualClock()
    service = emulated_service(clock)
    whole = stream(service.app, with_openai, clock=clock, world=service.rack, **sizes)
    print(f"{'openai, our rack':<18} {whole.us_per_token:6.0f}   TTFT {whole.ttft_s:.5f} s")


if __name__ == "__main__":
    main()
