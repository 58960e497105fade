"""Routers and the gateway beside each other: what they add, and what they carry.

    make peers
    python -m benchmarks.gateway.compare --arms direct,vllm-router,smg,panjiu

Everything is on this machine's loopback, in front of servers that answer at once; client, router
and servers share the cores, so compare arms within a run, and runs by CPU a turn. An arm that is
not installed, or fails, is said to and left out.

Three measurements an arm: what it adds to serial requests of five conversations (each sent without
it too; in parentheses for direct alone), many sessions at once with 64 turns in flight, and 64
streams at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.gateway.arms import DIRECT, Arm, ArmError, chosen_arms, running_arm
from benchmarks.gateway.conversations import CONVERSATIONS
from benchmarks.gateway.http_connection import AnswerError
from benchmarks.gateway.measures import (
    Chunks,
    Latency,
    Scale,
    ScaleSize,
    serial_latency,
    sessions_at_scale,
    streamed_chunks,
)

STREAMS = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything of one arm."""

    arm: str
    latency: dict[str, Latency]
    scale: Scale
    chunks: Chunks


async def measure(arm: Arm, direct_port: int, args: argparse.Namespace) -> Measured:
    """Take all measurements of an arm."""
    latency = {
        str(first): await serial_latency(arm, direct_port, first, args.requests)
        for first in CONVERSATIONS
    }
    size = ScaleSize(sessions=args.sessions, think_s=args.think_s)
    scale = await sessions_at_scale(arm, size)
    return Measured(arm.name, latency, scale, await streamed_chunks(arm, STREAMS, args.chunks))


@contextmanager
def instant_servers(base_port: int, count: int) -> Iterator[range]:
    """Run the servers in a process of their own; yield their ports."""
    command = [sys.executable, "-m", "benchmarks.gateway.instant_servers"]
    command += ["--base-port", str(base_port), "--count", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise SystemExit(f"the servers can't listen from {base_port} on; see above")
            yield range(base_port, base_port + count)
        finally:
            process.terminate()


def run(args: argparse.Namespace, console: Console) -> list[Measured]:
    """Measure all arms, one after the other."""
    measured = []
    for number, name in enumerate(args.arms):
        command = args.panjiu_command if name == "panjiu" else None
        port = args.base_port + args.targets + 2 * number  # no port twice: some linger
        with instant_servers(args.base_port, args.targets) as targets:
            try:
                with running_arm(name, command, port, targets) as arm:
                    console.print(f"measuring {name} ...")
                    measured.append(asyncio.run(measure(arm, targets[0], args)))
            except (ArmError, AnswerError, ExceptionGroup, TimeoutError, OSError) as error:
                console.print(f"{name} is left out: {type(error).__name__}: {error}", markup=False)
    return measured


def table(measured: list[Measured], args: argparse.Namespace) -> Table:
    """Return all of it as a table; latencies are what an arm adds, but for ``direct``."""
    result = Table(
        title=f"{args.targets} targets x {args.sessions} sessions", title_justify="left", box=None
    )
    result.add_column("arm")
    for first in CONVERSATIONS:
        result.add_column(f"added ms at\n{first}\np50 / p95", justify="right")
    for heading in ("turns/s", "ms a turn\np50 / p99", "router CPU\nms a turn"):
        result.add_column(heading, justify="right")
    result.add_column("streamed\nchunks/s", justify="right")
    result.add_column("router CPU\nus a chunk", justify="right")
    for one in measured:
        cells = []
        for here in one.latency.values():
            if one.arm == DIRECT:
                cells.append(f"({here.p50_ms:.2f} / {here.p95_ms:.2f})")
            else:
                cells.append(f"{here.added_p50_ms:.2f} / {here.added_p95_ms:.2f}")
        scale, chunks = one.scale, one.chunks
        result.add_row(
            one.arm,
            *cells,
            f"{scale.turns_per_s:,.0f}",
            f"{scale.p50_ms:.1f} / {scale.p99_ms:.1f}",
            "-" if scale.cpu_ms is None else f"{scale.cpu_ms:.2f}",
            f"{chunks.chunks_per_s:,.0f}",
            "-" if chunks.cpu_us is None else f"{chunks.cpu_us:.1f}",
        )
    return result


def ratios(measured: list[Measured]) -> list[str]:
    """Return how panjiu compares with each router, a line each; smaller is better but for rates."""
    ours = next((one for one in measured if one.arm == "panjiu"), None)
    if ours is None:
        return []
    lines = []
    for one in measured:
        if one is ours or one.arm == DIRECT:
            continue
        added = [
            ours.latency[kind].added_p50_ms / max(1e-3, theirs.added_p50_ms)
            for kind, theirs in one.latency.items()
        ]
        lines.append(
            f"panjiu / {one.arm}: added p50 "
            + " ".join(f"{ratio:.2f}x" for ratio in added)
            + f", turns/s {ours.scale.turns_per_s / one.scale.turns_per_s:.2f}x"
            + f", chunks/s {ours.chunks.chunks_per_s / one.chunks.chunks_per_s:.2f}x"
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", type=chosen_arms, default=chosen_arms("direct,vllm-router,smg"))
    parser.add_argument("--targets", type=int, default=128)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--think-s", type=float, default=0.2, help="between a session's turns")
    parser.add_argument("--requests", type=int, default=80, help="serial, a body size")
    parser.add_argument("--chunks", type=int, default=1_000, help="a stream")
    parser.add_argument("--base-port", type=int, default=21_000)
    parser.add_argument(
        "--panjiu-command",
        metavar="TEMPLATE",
        help="how the gateway is started, with {python}, {port} and {engines}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    console = Console(highlight=False, width=max(170, Console().width))
    measured = run(args, console)
    console.print(table(measured, args))
    for line in ratios(measured):
        console.print(line)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(one) for one in measured], indent=1) + "\n")


if __name__ == "__main__":
    main()
