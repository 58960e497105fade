"""A made-up rack that tells its view: messages of a busy one, and a server of messages."""

from __future__ import annotations

import itertools
import json
import sys
import threading  # noqa: TID251 - a server beside a command, which blocks
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime.cli.rack_server import listen

HELD, PREFILL, DECODE, GAP = range(4)
UP, DOWN, DRAINING, EMPTY = range(4)


def layout(num_replicas: int = 32, **changed: Any) -> dict[str, Any]:
    chips = 4 * num_replicas
    return {
        "kind": "layout",
        "v": 1,
        "title": "Qwen3-235B-A22B on Panjiu AL128",
        "rack": "panjiu-al128",
        "model": "qwen3-235b-a22b",
        "policy": "panjiu",
        "source": "emulated",
        "band": "base",
        "speed": 5.0,
        "kv_tokens": 1_234_567,
        "fill": "reported",
        "chips": [{"domain": chip // 64} for chip in range(chips)],
        "replicas": [
            {"id": n, "chips": list(range(4 * n, 4 * n + 4)), "label": str(n)}
            for n in range(num_replicas)
        ],
        "states": ["held", "prefill", "decode", "gap"],
        "healths": ["up", "down", "draining", "empty"],
        "series": ["ttft_s", "tpot_s", "jct_s"],
        **changed,
    }


def frame(now_s: float = 0.0, **changed: Any) -> dict[str, Any]:
    """Return a frame of a rack of two replicas on which nothing happens."""
    return {
        "kind": "frame",
        "t": now_s,
        "whole": True,
        "replicas": [[0, 0, 0, 0, UP], [0, 0, 0, 0, UP]],
        "sessions": [],
        "gone": [],
        "moves": [],
        "latest": [],
        "series": [None, None, None],
        "totals": {
            "turns": 0,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "output_tokens": 0,
            "sessions_closed": 0,
            "refused": 0,
        },
        **changed,
    }


@dataclass
class BusyRack:
    """Sessions that come, wait, run and go, by chance; ``frames`` never ends."""

    num_replicas: int = 32
    num_sessions: int = 300
    seed: int = 0
    speed: float = 5.0
    now_s: float = 750.0
    totals: dict[str, int] = field(default_factory=lambda: dict(frame()["totals"]))

    def frames(self) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(self.seed)
        sessions = {f"coding-{n:04d}": self._session(random, n) for n in range(self.num_sessions)}
        load = random.integers(200, 1001, self.num_replicas)
        number, whole = self.num_sessions, True
        while True:
            changed = set(sessions) if whole else set()
            gone, latest, moves = [], [], []
            for key in random.choice(sorted(sessions), self.num_sessions // 12, replace=False):
                row = sessions[str(key)]
                if row[1] == GAP and random.random() < 0.05:
                    gone.append(str(key))
                    del sessions[str(key)]
                    changed.discard(str(key))
                    born = f"coding-{number:04d}"
                    sessions[born] = self._session(random, number)
                    changed.add(born)
                    number += 1
                    continue
                held_s = self.now_s - row[4] if row[1] == HELD else 0.0
                row[1] = (row[1] + 1) % 4
                if row[1] == HELD and random.random() < 0.9:
                    row[1] = PREFILL
                row[4] = round(self.now_s, 3)
                changed.add(str(key))
                if row[1] == PREFILL:
                    if random.random() < 0.1:
                        target = int(random.integers(self.num_replicas))
                        moves.append([row[0], row[2], target, self.now_s, self.now_s + 0.4, row[3]])
                        row[2] = target
                    row[5] = f"{row[0]}#{random.integers(90)}"
                    cached = int(row[3] * random.uniform(0.8, 1))
                    latest.append([row[5], row[0], row[2], self.now_s, held_s, cached])
                    self.totals["turns"] += 1
                    self.totals["prompt_tokens"] += row[3]
                    self.totals["cached_tokens"] += cached
                    self.totals["output_tokens"] += int(random.integers(50, 900))
            self.totals["sessions_closed"] += len(gone)
            load = np.clip(load + random.integers(-40, 41, self.num_replicas), 60, 1000)
            yield frame(
                round(self.now_s, 3),
                whole=whole,
                replicas=[
                    self._gauges(n, sessions, int(load[n])) for n in range(self.num_replicas)
                ],
                sessions=[sessions[key] for key in sorted(changed)],
                gone=gone,
                latest=latest,
                moves=moves,
                series=[[0.505, 8.65, 40], [0.0166, 0.0344, 38], [1813.0, 2487.0, 4]],
                totals=dict(self.totals),
            )
            self.now_s += 0.5 * self.speed
            whole = False

    def _session(self, random: np.random.Generator, number: int) -> list[Any]:
        state = int(random.choice(4, p=[0.04, 0.1, 0.3, 0.56]))
        key = f"coding-{number:04d}"
        parent = f"coding-{number // 2:04d}" if number % 5 == 1 else ""
        since_s = round(self.now_s - float(random.exponential(20)), 3)
        tokens = int(random.lognormal(11, 0.8))
        turn = "" if state == GAP else f"{key}#{random.integers(90)}"
        return [key, state, int(random.integers(self.num_replicas)), tokens, since_s, turn, parent]

    def _gauges(self, number: int, sessions: dict[str, list[Any]], used: int) -> list[int]:
        own = [row[1] for row in sessions.values() if row[2] == number]
        if number == 13:
            return [0, 0, 0, 0, DOWN]
        health = DRAINING if number == 20 else UP
        running = own.count(DECODE)
        return [running, own.count(PREFILL), used, min(used, 90 * running), health]


def event(message: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(message, separators=(",", ":")).encode() + b"\n\n"


class ViewService:
    """``/view/stream``: each connection gets the next of these messages, and then waits.

    Args:
        connections: What each one is sent; ``None`` breaks the connection off.
        pace_s: Between messages.

    Attributes:
        refusal: Answered instead, if there is one.
        headers: Of the requests that came.
    """

    def __init__(self, *connections: Iterable[dict[str, Any] | None], pace_s: float = 0.0) -> None:
        self._connections, self._pace_s = list(connections), pace_s
        self.refusal: Response | None = None
        self.headers: list[dict[str, str]] = []
        self.app = Starlette(routes=[Route("/view/stream", self._stream)])

    async def _stream(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        if self.refusal is not None:
            return self.refusal
        if not self._connections:
            return JSONResponse({"error": {"message": "too many viewers"}}, 503)
        events = self._events(self._connections.pop(0))
        return StreamingResponse(events, media_type="text/event-stream")

    async def _events(self, messages: Iterable[dict[str, Any] | None]) -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        for message in messages:
            if message is None:
                return
            yield event(message)
            await anyio.sleep(self._pace_s)
        await anyio.sleep_forever()


def busy_service(num_replicas: int = 32, num_connections: int = 1) -> ViewService:
    """Return the view of a busy rack, a frame each twentieth of a second."""
    connections = [
        itertools.chain([layout(num_replicas)], BusyRack(num_replicas).frames())
        for _ in range(num_connections)
    ]
    return ViewService(*connections, pace_s=0.05)


def _server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none")
    config.timeout_graceful_shutdown = 1
    return uvicorn.Server(config)


@contextmanager
def served_beside(app: Starlette) -> Iterator[str]:
    """Serve on a loopback port in a thread, for commands that block; yield the URL."""
    server = _server(app)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=partial(server.run, sockets=[listener]))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Serve on a loopback port; yield the URL."""
    server = _server(app)
    with listen("127.0.0.1", 0) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True


if __name__ == "__main__":  # a rack to look at: python -m tests.viewed_rack 128 8000
    app = busy_service(int(sys.argv[1]), num_connections=1_000).app
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
