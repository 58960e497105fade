"""What is measured of an arm: added latency, sessions at scale, streamed chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.gateway.arms import Arm
from benchmarks.gateway.conversations import Conversation, turns
from benchmarks.gateway.http_connection import HttpConnection
from benchmarks.gateway.process_cpu import cpu_s

TURNS_SERIAL = 10
WARM_UP = 5
AT_MOST_S = 60.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds that serial requests of one kind took.

    Attributes:
        p50_ms, p95_ms: Through the arm.
        direct_p50_ms, direct_p95_ms: Of the same requests without it, sent in between: the machine
            is not the same from minute to minute.
    """

    p50_ms: float
    p95_ms: float
    direct_p50_ms: float
    direct_p95_ms: float

    @property
    def added_p50_ms(self) -> float:
        """What the arm adds."""
        return self.p50_ms - self.direct_p50_ms

    @property
    def added_p95_ms(self) -> float:
        """What the arm adds to the tail."""
        return self.p95_ms - self.direct_p95_ms


@dataclass(frozen=True, slots=True)
class Scale:
    """Many sessions at once.

    Attributes:
        turns_per_s: Until the last turn had its answer, or time was up.
        p50_ms, p99_ms: Of a turn, from when it was sent.
        cpu_ms: Of the router, a turn.
    """

    turns_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float | None


@dataclass(frozen=True, slots=True)
class Chunks:
    """Many streams at once."""

    chunks_per_s: float
    cpu_us: float | None


@dataclass(frozen=True, slots=True)
class ScaleSize:
    """How many sessions of how many turns, with what between them."""

    sessions: int = 500
    turns: int = 6
    body_bytes: int = 8_000
    in_flight: int = 64
    think_s: float = 0.2


async def serial_latency(
    arm: Arm, direct_port: int, first: Conversation, num_requests: int
) -> Latency:
    """Measure one request after the other, sessions of ten turns, each with and without the arm."""
    through = await HttpConnection.connect(arm.ports[0])
    direct = await HttpConnection.connect(direct_port)
    took_s: tuple[list[float], list[float]] = [], []
    deadline_s = time.monotonic() + AT_MOST_S
    for session in range(-(-(num_requests + WARM_UP) // TURNS_SERIAL)):
        for request in turns(f"serial-{first}-{session}", first, TURNS_SERIAL):
            for connection, times_s in zip((through, direct), took_s, strict=True):
                began_s = time.perf_counter()
                await connection.send(request)
                times_s.append(time.perf_counter() - began_s)
        if time.monotonic() > deadline_s:
            break
    through.close()
    direct.close()
    shares = [np.percentile(times_s[WARM_UP:], [50, 95]) * 1e3 for times_s in took_s]
    return Latency(*(float(value) for share in shares for value in share))


class _Pool:
    """Connections to an arm; as many as are used at a time."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._idle: dict[int, list[HttpConnection]] = {port: [] for port in ports}

    async def send(self, session: int, request: bytes) -> HttpConnection:
        """Send a request and wait for its end; return the connection, for what it counted."""
        port = self._ports[session % len(self._ports)]
        idle = self._idle[port]
        connection = idle.pop() if idle else await HttpConnection.connect(port)
        await connection.send(request)
        idle.append(connection)
        return connection

    def close(self) -> None:
        """Close all that are idle."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()


async def sessions_at_scale(arm: Arm, size: ScaleSize) -> Scale:
    """Measure many sessions whose turns compete for so many places."""
    pool, places = _Pool(arm.ports), asyncio.Semaphore(size.in_flight)
    took_s: list[float] = []
    prepared = [
        list(turns(f"scale-{number}", Conversation(size.body_bytes), size.turns))
        for number in range(size.sessions)
    ]

    async def session(number: int) -> None:
        await asyncio.sleep(size.think_s * number / size.sessions)
        for request in prepared[number]:
            async with places:
                began_s = time.perf_counter()
                await pool.send(number, request)
                took_s.append(time.perf_counter() - began_s)
            await asyncio.sleep(size.think_s)

    used_s = 0.0 if arm.pid is None else cpu_s(arm.pid)
    began_s = time.perf_counter()
    try:
        async with asyncio.timeout(AT_MOST_S), asyncio.TaskGroup() as tasks:
            for number in range(size.sessions):
                tasks.create_task(session(number))
    except TimeoutError:
        pass  # what came until now counts
    wall_s = time.perf_counter() - began_s
    pool.close()
    p50_s, p99_s = np.percentile(took_s, [50, 99])
    cpu_ms = None if arm.pid is None else (cpu_s(arm.pid) - used_s) / len(took_s) * 1e3
    return Scale(len(took_s) / wall_s, float(p50_s) * 1e3, float(p99_s) * 1e3, cpu_ms)


async def streamed_chunks(arm: Arm, num_streams: int, num_chunks: int) -> Chunks:
    """Measure streams side by side, each two in turn; the first warms up."""
    pool = _Pool(arm.ports)

    async def stream(number: int, turn: int, most: int) -> int:
        name = f"stream-{turn}-{number}"
        (request,) = turns(name, Conversation(1_000), 1, max_tokens=most, stream=True)
        return (await pool.send(number, request)).num_events - 1  # [DONE]

    await asyncio.gather(*(stream(number, 0, 10) for number in range(num_streams)))
    used_s = 0.0 if arm.pid is None else cpu_s(arm.pid)
    began_s = time.perf_counter()
    async with asyncio.timeout(AT_MOST_S):
        counts = await asyncio.gather(
            *(stream(number, 1, num_chunks) for number in range(num_streams))
        )
    wall_s = time.perf_counter() - began_s
    pool.close()
    cpu_us = None if arm.pid is None else (cpu_s(arm.pid) - used_s) / sum(counts) * 1e6
    return Chunks(sum(counts) / wall_s, cpu_us)
