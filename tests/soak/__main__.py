"""Soaks the gateway, a process of its own before engines of words, over sockets:

    python -m tests.soak --turns 100000

Streams and whole answers in four dialects, sessions that are opened, found, forked, paused and
closed, clients that leave, err, are refused and come back, and engines that die and come back
empty. What the gateway takes when it is warm (after the first tenth, 10,000 turns at least), once
all is quiet, all sessions are closed and the engines have lost their KV, it must take at the end:
descriptors, tasks, threads, sessions, the entries of what its own objects hold, and objects by
their types after a garbage collection.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

import anyio
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from tests.soak.census import BLOCKS
from tests.soak.soak import Soaked, SoakPlan, soak


def main() -> int:
    """Soak; return 1 if something leaked or a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--turns", type=int, default=100_000, metavar="N", help="(default: 100000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    args = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    begun_s = time.perf_counter()  # noqa: TID251 - what it took, for who waits
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("turns", total=args.turns)
        plan = SoakPlan(args.turns, args.seed)
        try:
            soaked = anyio.run(
                partial(soak, plan, lambda num: progress.update(task, completed=num))
            )
        except KeyboardInterrupt:
            console.print("stopped before there was anything to compare")
            return 130
    console.print(f"{args.turns:,} turns in {time.perf_counter() - begun_s:.0f} s")  # noqa: TID251
    return report(console, soaked)


def report(console: Console, soaked: Soaked) -> int:
    """Tell what came of it; return the exit code."""
    for what, times in soaked.counts.most_common():
        console.print(f"{times:10,}  {what}")
    console.print(levels(soaked))
    console.print(f"at work, resident MiB by tenths: {soaked.resident_by_tenths()}")
    leaks = soaked.leaks()
    for title, lines in (("leaked", leaks), ("broken promises", soaked.problems)):
        for line in lines:
            console.print(f"{title}: {line}", markup=False)
    if soaked.exit_code != 0 or "Traceback" in soaked.said:
        console.print(f"the gateway ended with {soaked.exit_code} and said:\n{soaked.said}")
        return 1
    console.print("nothing leaked" if not leaks else "")
    return int(bool(leaks or soaked.problems))


def levels(soaked: Soaked) -> Table:
    """Return what it took before and after."""
    table = Table("at rest", box=None, title_justify="left")
    table.add_column("warm", justify="right")
    table.add_column("at the end", justify="right")
    before, after = soaked.before, soaked.after
    assert before is not None
    assert after is not None
    for name, was in before.gauges.items():
        table.add_row(name, f"{was:,.0f}", f"{after.gauges[name]:,.0f}")
    for name, one, other in (
        ("objects", sum(_objects(before.alive)), sum(_objects(after.alive))),
        ("blocks", before.alive[BLOCKS], after.alive[BLOCKS]),
        ("entries held", sum(_entries(before.alive)), sum(_entries(after.alive))),
    ):
        table.add_row(name, f"{one:,}", f"{other:,}")
    mib = 1 << 20
    table.add_row(
        "resident MiB", f"{before.resident_bytes / mib:,.0f}", f"{after.resident_bytes / mib:,.0f}"
    )
    return table


def _objects(alive: dict[str, int]) -> list[int]:
    return [number for name, number in alive.items() if not (name.endswith("[]") or name == BLOCKS)]


def _entries(alive: dict[str, int]) -> list[int]:
    return [number for name, number in alive.items() if name.endswith("[]")]


if __name__ == "__main__":
    sys.exit(main())
