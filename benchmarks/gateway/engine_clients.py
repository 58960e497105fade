"""Streamed chunks a second that HTTP clients take from an engine, one client process alone.

    python -m benchmarks.gateway.engine_clients
    python -m benchmarks.gateway.engine_clients --tokens 1 --rounds 100   # what a request costs

The engine is ``fake_engine``, which sends every token in a write of its own; nothing is parsed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import anyio
import httpx2

from agent_runtime.backends.vllm_servers.engine_connections import (
    EngineConnections,
    open_engine_http,
)
from benchmarks.gateway.relayed_chunks import SEPARATOR, measure, process, wait_for

BODY = b'{"messages": [], "stream": true}'
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at once, each so many requests one after the other."""

    streams: int
    rounds: int


async def read_own(url: str, load: Load) -> int:
    """Read so many streams with the gateway's own client."""
    num = 0

    async def read(http: EngineConnections) -> None:
        nonlocal num
        for _ in range(load.rounds):
            reply = await http.send("POST", url + PATH, BODY, {})
            while data := await reply.next_bytes():
                num += data.count(SEPARATOR)

    async with open_engine_http() as http, anyio.create_task_group() as tasks:
        for _ in range(load.streams):
            tasks.start_soon(read, http)
    return num


async def read_aiohttp(url: str, load: Load) -> int:
    """Read so many streams with aiohttp."""
    num = 0

    async def read(session: aiohttp.ClientSession) -> None:
        nonlocal num
        for _ in range(load.rounds):
            async with session.post(url + PATH, data=BODY) as response:
                while data := await response.content.readany():
                    num += data.count(SEPARATOR)

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(load.streams):
            tasks.start_soon(read, session)
    return num


async def read_httpx2(url: str, load: Load) -> int:
    """Read so many streams with httpx2."""
    num = 0

    async def read(client: httpx2.AsyncClient) -> None:
        nonlocal num
        for _ in range(load.rounds):
            async with client.stream("POST", url + PATH, content=BODY) as response:
                async for data in response.aiter_raw():
                    num += data.count(SEPARATOR)

    limits = httpx2.Limits(max_connections=None)
    async with (
        httpx2.AsyncClient(limits=limits, timeout=None) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(load.streams):
            tasks.start_soon(read, client)
    return num


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2000, help="of a reply")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="requests a stream")
    parser.add_argument("--port", type=int, default=18_610)
    args = parser.parse_args()
    clients: dict[str, Callable[[str, Load], Awaitable[int]]] = {
        "own": read_own,
        "aiohttp": read_aiohttp,
        "httpx2": read_httpx2,
    }
    with process("benchmarks.gateway.fake_engine", str(args.port), str(args.tokens)):
        wait_for(args.port)
        for use_uvloop in (False, True):
            loop = "uvloop" if use_uvloop else "asyncio"
            options = {"use_uvloop": use_uvloop}
            for name, read in clients.items():
                begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
                url = f"http://127.0.0.1:{args.port}"
                load = Load(args.streams, args.rounds)
                num = anyio.run(read, url, load, backend_options=options)
                seconds = time.perf_counter() - begun_s
                spent_s = time.process_time() - begun_cpu_s
                print(
                    f"{name:>12} on {loop:<8} {num / seconds:>10,.0f} events/s "
                    f"{1e6 * spent_s / num:>6.1f} us of CPU an event, "
                    f"{1e6 * spent_s / (load.streams * load.rounds):>8,.0f} us a request"
                )
        flow = anyio.run(measure, args.port, args.streams, 1)
        print(f"{'sockets':>12} on asyncio  {flow.events_per_s:>10,.0f} events/s")


if __name__ == "__main__":
    main()
