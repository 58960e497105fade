"""Streamed chunks a second through the gateway, beside a direct connection to the same engine.

    python -m benchmarks.gateway.relayed_chunks

Three processes on loopback: a fake engine that is as fast as anybody, the gateway as ``panjiu serve
--engine`` runs it, and a client that only counts. All three share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

SEPARATOR = b"\n\n"


@dataclass(frozen=True, slots=True)
class Flow:
    """What passed.

    Attributes:
        num_events: Server-sent events.
        seconds: In so long.
    """

    num_events: int
    seconds: float

    @property
    def events_per_s(self) -> float:
        """Events a second."""
        return self.num_events / self.seconds


async def measure(port: int, num_streams: int, num_rounds: int) -> Flow:
    """Read so many streams at once, again and again."""
    counts: list[int] = []

    async def read(number: int) -> None:
        for turn in range(num_rounds):
            message = {"role": "user", "content": f"stream {number}, turn {turn}"}
            body = json.dumps(
                {"messages": [message], "stream": True, "session_id": f"s{number}"}
            ).encode()
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                tail, num = b"", 0
                while b"[DONE]" not in tail:
                    data = await stream.receive(1 << 18)
                    num += data.count(SEPARATOR)
                    tail = data[-64:]
                counts.append(num)

    begun_s = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(num_streams):
            tasks.start_soon(read, number)
    return Flow(sum(counts), time.perf_counter() - begun_s)


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module until the context is left."""
    root = Path(__file__).parents[2]
    started = subprocess.Popen([sys.executable, "-m", *arguments], cwd=root)  # noqa: S603
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, where the system tells."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return float("nan")
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2000, help="of a reply")
    parser.add_argument("--streams", type=int, nargs="*", default=[16, 64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--step-s", type=float, default=0.0, help="of the engine; 0 is as fast as anybody reads"
    )
    parser.add_argument("--port", type=int, default=18_600)
    args = parser.parse_args()
    engine, gateway = args.port, args.port + 1
    with (
        process("benchmarks.gateway.fake_engine", str(engine), str(args.tokens), str(args.step_s)),
        process(
            "agent_runtime.cli.main", "serve", "--engine", f"http://127.0.0.1:{engine}",
            "--port", str(gateway),
        ) as served,
    ):  # fmt: skip
        wait_for(engine)
        time.sleep(4)
        wait_for(gateway)
        print(
            f"{'streams':>8} {'direct, events/s':>18} {'gateway, events/s':>18} {'ratio':>6}",
            end="",
        )
        print(f" {'gateway CPU, us/event':>22}")
        for num_streams in args.streams:
            direct = anyio.run(measure, engine, num_streams, args.rounds)
            before_s = cpu_s(served.pid)
            through = anyio.run(measure, gateway, num_streams, args.rounds)
            spent_s = cpu_s(served.pid) - before_s
            print(
                f"{num_streams:>8} {direct.events_per_s:>18,.0f} {through.events_per_s:>18,.0f} "
                f"{through.events_per_s / direct.events_per_s:>6.2f} "
                f"{1e6 * spent_s / through.num_events:>22.1f}"
            )


if __name__ == "__main__":
    main()
