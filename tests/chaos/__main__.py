"""Runs seeds:

python -m tests.chaos --seeds 500           from seed 0 on, on all cores
python -m tests.chaos --seed 4711           one, with everything that happened
"""

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from tests.chaos.fault_plan import plan_of
from tests.chaos.simulation import Outcome, run_plan

MOST_SHOWN = 5


def run_seed(seed: int) -> Outcome:
    """Run a seed."""
    return run_plan(plan_of(seed))


def main() -> int:
    """Run what the command line says; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=500, metavar="N", help="(default: 500)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="(default: 0)")
    parser.add_argument("--seed", type=int, metavar="SEED", help="run this one alone, and tell all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    args = parser.parse_args()
    console = Console(highlight=False)
    if args.seed is not None:
        outcome = run_seed(args.seed)
        for line in outcome.log:
            console.print(line, markup=False, soft_wrap=True)
        _report(console, outcome)
        return int(outcome.problem is not None)
    return _run_many(console, range(args.first, args.first + args.seeds), args.jobs)


def _run_many(console: Console, seeds: range, jobs: int) -> int:
    struck: Counter[str] = Counter()
    broken: list[Outcome] = []
    num_turns = num_attempts = 0
    simulated_s = slowest_s = 0.0
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with (
        ProcessPoolExecutor(jobs) as pool,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        outcomes = pool.map(run_seed, seeds, chunksize=5)
        for outcome in progress.track(outcomes, len(seeds), description="seeds"):
            struck.update(planned.fault.value for planned in outcome.plan.faults)
            num_turns += outcome.num_turns
            num_attempts += outcome.num_attempts
            simulated_s += outcome.ended_s
            slowest_s = max(slowest_s, outcome.ended_s - outcome.plan.heal_s)
            if outcome.problem is not None:
                broken.append(outcome)
    console.print(
        f"{len(seeds):,} seeds, {num_turns:,} turns asked for {num_attempts:,} times, "
        f"{simulated_s / 3600:,.1f} simulated hours; all done {slowest_s:.0f} s after the last "
        "fault at the latest"
    )
    for fault, times in struck.most_common():
        console.print(f"{times:8,}  {fault}")
    for outcome in broken[:MOST_SHOWN]:
        _report(console, outcome)
    console.print(f"{len(broken)} seeds broke a promise")
    return int(bool(broken))


def _report(console: Console, outcome: Outcome) -> None:
    seed = outcome.plan.seed
    if outcome.problem is None:
        console.print(f"seed {seed}: all promises kept")
        return
    console.print(f"seed {seed} broke a promise:\n{outcome.problem}", markup=False)
    console.print(f"again, with everything that happened: python -m tests.chaos --seed {seed}")


if __name__ == "__main__":
    sys.exit(main())
