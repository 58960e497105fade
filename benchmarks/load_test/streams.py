"""How many streams one process of ``panjiu loadtest`` carries.

    python -m benchmarks.load_test.streams --streams 250,500,1000,2000

Loads a server that gives every stream a token a step and does nothing else (in a process of its
own), with so many sessions at a time, and prints what the client says of itself. Machines differ:
compare rows.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.load_test.tools import ROOT, run_tool

NUM_TOKENS = 200
UP_S = 20.0


@contextmanager
def stepping_server(step_s: float) -> Iterator[str]:
    """Run ``benchmarks.gateway.fake_engine``; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.gateway.fake_engine"]
    arguments = [str(port), str(NUM_TOKENS), str(step_s)]
    with subprocess.Popen([*command, *arguments], cwd=ROOT) as process:  # noqa: S603 - ours
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url)
            yield url
        finally:
            process.kill()


def _wait_for(url: str) -> None:
    until_s = time.monotonic() + UP_S
    while True:
        try:
            httpx2.get(f"{url}/health").raise_for_status()
        except httpx2.HTTPError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
        else:
            return


def told_by_client(url: str, num_streams: int, duration: str, gap_scale: float) -> dict[str, Any]:
    """Return the JSON of a run."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "told.json"
        run_tool(
            [
                sys.executable, "-m", "agent_runtime.cli.main", "loadtest", "--url", url,
                "--model", "fake", "--workload", "api-agents", "--limit", "4000",
                "--gap-scale", str(gap_scale), "--sessions", str(num_streams),
                "--duration", duration,
                "--reply-length", "cap", "--json", target,
            ],
            Path(folder), {},
        )  # fmt: skip
        found: dict[str, Any] = json.loads(target.read_text())
        return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--streams", default="250,500,1000,2000")
    parser.add_argument("--step-ms", type=float, default=50.0)
    parser.add_argument("--duration", default="20s")
    parser.add_argument(
        "--gap-scale",
        type=float,
        default=0.0,
        help="of tool gaps; 0 has all sessions take turns in the same moments, the worst case",
    )
    args = parser.parse_args()
    print(f"{'streams':>8}{'tokens/s':>10}{'core':>7}{'us/token':>10}{'lag p99 ms':>12}  limit")
    with stepping_server(args.step_ms / 1000) as url:
        for num_streams in (int(part) for part in args.streams.split(",")):
            told = told_by_client(url, num_streams, args.duration, args.gap_scale)
            client, rate = told["client"], told["throughput"]["output_tokens_per_s"]
            share, lag_s = client["cpu_share"], client["loop_lag_s"]["p99"]
            print(
                f"{num_streams:>8}{rate:>10,.0f}{share:>7.0%}{share / rate * 1e6:>10.1f}"
                f"{lag_s * 1e3:>12.1f}  {'yes' if client['is_limit'] else ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
