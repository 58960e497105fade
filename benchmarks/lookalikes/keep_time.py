"""Whether look-alikes keep time: how late tokens leave, with many replicas and many streams.

    python -m benchmarks.lookalikes.keep_time --replicas 128 --streams 500 --processes 2

Starts ``panjiu emulate``, keeps so many streams open on it, replica by replica in turn, and reads
``panjiu_lateness_seconds`` of every replica at the end. The client reads bytes and counts tokens by
their chunks, nothing else, and takes its share of the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from agent_runtime.look_alikes.lateness import BOUNDS_S, LatenessSummary
from benchmarks.gateway.http_connection import HttpConnection
from benchmarks.gateway.process_cpu import cpu_s

END = b"data: [DONE]\n\n"
CHUNK = b'"delta":{"content":'
BUCKET = re.compile(rb'panjiu_lateness_seconds_bucket\{le="[^"]+"\} ([\d.]+)')
RAMP_S = 3.0


@dataclass(frozen=True, slots=True)
class KeptTime:
    """What one run showed.

    Attributes:
        lateness: Of all replicas, from when all streams were open.
        tokens_per_s: That clients read.
        server_cpu, client_cpu: Cores in use.
    """

    lateness: LatenessSummary
    tokens_per_s: float
    server_cpu: float
    client_cpu: float


class StreamReader(asyncio.Protocol):
    """One client: asks again when its stream has ended."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self.num_tokens = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP
        self._transport = transport
        transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        """Count chunks."""
        self.num_tokens += data.count(CHUNK)
        tail = self._tail + data[-len(END) - 8 :]
        if END in tail:
            self._tail = b""
            self._transport.write(self._request)
        else:
            self._tail = tail[-len(END) :]


def request(model: str, number: int, args: argparse.Namespace) -> bytes:
    """Return one client's request, HTTP and all."""
    words = f"I am agent {number}. " + "Go on with the work. " * (args.prompt_tokens // 6)
    body = json.dumps(
        {
            "model": model,
            "stream": True,
            "max_tokens": args.output_tokens,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": words}],
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_lateness(ports: range) -> LatenessSummary:
    """Return the lateness of all replicas so far."""
    counts = []
    for port in ports:
        connection = await HttpConnection.connect(port)
        page = await connection.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.close()
        cumulated = [int(float(value)) for value in BUCKET.findall(page)]
        counts.append(
            [now - before for now, before in zip(cumulated, [0, *cumulated], strict=False)]
        )
    assert len(counts[0]) == len(BOUNDS_S) + 1  # noqa: S101 - the page is our own
    return LatenessSummary.of(counts)


async def measure(ports: range, server: int, args: argparse.Namespace) -> KeptTime:
    """Open the streams, wait, and look."""
    loop = asyncio.get_running_loop()
    readers = []
    for number in range(args.streams):
        port = ports[number % len(ports)]
        _, reader = await loop.create_connection(
            partial(StreamReader, request(args.model, number, args)), "127.0.0.1", port
        )
        readers.append(reader)
        await asyncio.sleep(RAMP_S / args.streams)
    await asyncio.sleep(1.0)
    before = await read_lateness(ports)
    began_s, server_s, client_s = time.monotonic(), cpu_s(server), time.process_time()
    num_tokens = sum(reader.num_tokens for reader in readers)
    await asyncio.sleep(args.seconds)
    num_tokens = sum(reader.num_tokens for reader in readers) - num_tokens
    took_s = time.monotonic() - began_s
    server_s, client_s = cpu_s(server) - server_s, time.process_time() - client_s
    return KeptTime(
        (await read_lateness(ports)).since(before),
        num_tokens / took_s,
        server_s / took_s,
        client_s / took_s,
    )


@contextmanager
def look_alikes(args: argparse.Namespace) -> Iterator[int]:
    """Run ``panjiu emulate``; yield its process id."""
    command = [
        *(sys.executable, "-m", "agent_runtime.cli.main", "emulate"),
        *("--replicas", str(args.replicas), "--model", args.model, "--tp", "1"),
        *("--processes", str(args.processes), "--base-port", str(args.base_port)),
        *("--speed", str(args.speed)),
    ]
    if args.kv_events:
        command += ["--kv-events-base-port", str(args.base_port + args.replicas)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stderr is not None  # noqa: S101 - piped
        try:
            said = ""
            for line in process.stderr:
                said += line
                if "Ctrl-C" in line:
                    break
            else:
                raise SystemExit(f"{' '.join(command)} did not start: {said}")
            yield process.pid
        finally:
            process.terminate()
            print("panjiu emulate said:", process.stderr.read().strip())


def main() -> None:
    """Print how late tokens were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=128)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--model", default="qwen3-32b", help="on one chip a replica")
    parser.add_argument("--prompt-tokens", type=int, default=2_000)
    parser.add_argument("--output-tokens", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--base-port", type=int, default=19_000)
    parser.add_argument("--kv-events", action="store_true", help="publish them too")
    args = parser.parse_args()
    ports = range(args.base_port, args.base_port + args.replicas)
    with look_alikes(args) as server:
        kept = asyncio.run(measure(ports, server, args))
    print(
        f"{args.replicas} replicas x {args.model}, {args.streams} streams, {args.processes} "
        f"processes: {kept.tokens_per_s:,.0f} tokens/s\n"
        f"lateness p50 {kept.lateness.p50_s * 1e3:.1f} ms, p99 {kept.lateness.p99_s * 1e3:.1f} ms "
        f"over {kept.lateness.num_batches:,} batches\n"
        f"cores: server {kept.server_cpu:.2f} ({kept.server_cpu / kept.tokens_per_s * 1e6:.0f} us "
        f"a token), client {kept.client_cpu:.2f}"
    )


if __name__ == "__main__":
    main()
