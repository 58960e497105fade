"""Overload in real time: three times what look-alikes can run, before the gateway, over sockets.

    python -m benchmarks.gateway.overload
    python -m benchmarks.gateway.overload --factor 5 --overload-s 120 --json out.json

It measures how many sessions a second can be run, lets it be calm for a while, has three times as
many begin for a minute, and then so few that it can recover. Every session is three turns of some
9,000 tokens. Of those that are refused, a share comes back when they are told to; others are gone.

Gateway, look-alikes and agents share this machine's cores. Where look-alikes can't keep up, it is
the machine that is overloaded: choose a lower --speed. Ctrl-C prints what there is so far.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import httpx2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.gateway.overload_load import Load, Phase, Seen
from benchmarks.gateway.overload_servers import gateway_before_look_alikes
from benchmarks.gateway.overload_summary import phase_table, recovery_s, summarise, timeline

NUM_AT_ONCE = 40
CALM, OVERLOAD, AFTER = "calm", "overload", "after"


@dataclass
class Overloaded:
    """A run.

    Attributes:
        capacity_per_s: Sessions that can be run.
        phases: That were begun.
        seen: By agents.
    """

    capacity_per_s: float
    phases: list[Phase]
    seen: Seen

    def begun(self) -> list[Phase]:
        """Return the phases that it came to."""
        return [phase for phase in self.phases if phase.name in self.seen.phase_began_s]


async def run(url: str, args: argparse.Namespace, result: Overloaded, progress: Progress) -> None:
    """Measure, and play all phases; what comes is put into ``result`` as it comes."""
    task = progress.add_task("measuring", total=args.measure_s)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        httpx2.AsyncClient(base_url=url, timeout=None, limits=limits) as http,
        anyio.create_task_group() as tasks,
    ):
        load = Load(http, np.random.default_rng(args.seed), args.come_back, result.seen)
        tasks.start_soon(load.watch)
        per_s = await load.capacity_per_s(NUM_AT_ONCE, args.measure_s)
        result.capacity_per_s = per_s
        result.phases = [
            Phase(CALM, 0.5 * per_s, args.calm_s),
            Phase(OVERLOAD, args.factor * per_s, args.overload_s),
            Phase(AFTER, 0.3 * per_s, args.after_s),
        ]
        await load.play(
            result.phases,
            lambda phase, s: progress.update(
                task, description=phase.name, total=phase.seconds, completed=s
            ),
        )
        tasks.cancel_scope.cancel()


def report(console: Console, result: Overloaded) -> None:
    """Print what came of it."""
    console.print(f"{result.capacity_per_s:.1f} sessions a second can be run")
    console.print(phase_table([summarise(result.seen, phase) for phase in result.begun()]))
    console.print(timeline(result.seen, 5.0))
    if len(result.begun()) == len(result.phases):
        calm, _, after = result.phases
        recovered_s = recovery_s(result.seen, calm, after)
        when = "not yet" if recovered_s is None else f"{recovered_s:.1f} s after the overload ended"
        console.print(f"recovered: {when}")
    for problem in result.seen.problems[:10]:
        console.print(f"should not be: {problem}", markup=False)
    console.print(f"{len(result.seen.problems)} answers that should not be")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--factor", type=float, default=3.0, help="(default: %(default)s)")
    made.add_argument("--measure-s", type=float, default=16.0, help="(default: %(default)s)")
    made.add_argument("--calm-s", type=float, default=15.0, help="(default: %(default)s)")
    made.add_argument("--overload-s", type=float, default=60.0, help="(default: %(default)s)")
    made.add_argument("--after-s", type=float, default=40.0, help="(default: %(default)s)")
    made.add_argument("--max-wait", type=float, default=5.0, help="of 'panjiu serve' (default: 5)")
    made.add_argument("--come-back", type=float, default=0.3, help="a share (default: 0.3)")
    made.add_argument("--replicas", type=int, default=2, help="(default: %(default)s)")
    made.add_argument("--speed", type=float, default=5.0, help="of them (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return made


def main() -> None:
    """Run and print."""
    args = parser().parse_args()
    console = Console(highlight=False, width=max(120, Console().width))
    result = Overloaded(0.0, [], Seen())
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with gateway_before_look_alikes(args.replicas, args.speed, args.max_wait) as url:
        try:
            with Progress(*columns, console=Console(stderr=True)) as progress:
                anyio.run(run, url, args, result, progress)
        except KeyboardInterrupt:
            console.print("stopped")
    report(console, result)
    if args.json is not None:
        args.json.write_text(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
