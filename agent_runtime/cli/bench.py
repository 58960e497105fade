"""``panjiu bench``: scheduling policies beside each other on the same sessions."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agent_runtime.cli.rack_options import (
    EmulatedMachine,
    add_machine_options,
    emulated_machine,
    natural_float,
    positive_float,
    positive_int,
)
from agent_runtime.comparison.capacity import Capacity, rack_capacity
from agent_runtime.comparison.cell import Bench, Cell, CellResult
from agent_runtime.comparison.cell_store import CellStore, bench_digest
from agent_runtime.comparison.sweep import FailedCell, sweep
from agent_runtime.errors import ConfigError
from agent_runtime.report.assumptions import assumptions
from agent_runtime.report.bench_page import BenchPage, bench_page
from agent_runtime.report.bench_table import bench_table, verdict_lines
from agent_runtime.workload.sources import GENERATORS, load_workload
from hw_model.claim import Band
from scheduler.policies import POLICIES, policy_entry

DESCRIPTION = """\
Run policies on the same sessions, at the same loads, with the same seeds, and compare them.

Sessions keep coming at random, whether or not the rack keeps up. A load of 1 is as many as a fluid
plan could serve that knows no batches, no fragments and no chance; real schedules saturate at 0.7
to 0.9 of it. Above that sessions must wait, and the question is which, and for how long."""

EXAMPLES = """\
examples:
  panjiu bench --replicas 4 --policies panjiu,llmd_default,thunderagent
                                              three policies on an eighth of the rack
  panjiu bench --sessions traces.jsonl.gz --policies all --load 0.6,0.9,1.2,1.6 --replicas 4 \\
      --seeds 5 --out results --html bench.html
                                              everything; if it is stopped, the same line goes on
  panjiu bench --host-kv-gb 64 --csv cells.csv
                                              with host memory for KV, one row a run
"""

EXIT_FAILURE, EXIT_INTERRUPTED = 1, 130


def add_bench_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="compare scheduling policies on the same sessions",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_comparison_options(parser)
    _add_session_options(parser)
    group = add_machine_options(parser)
    group.add_argument(
        "--band",
        choices=[band.value for band in Band],
        default=Band.BASE.value,
        help="which machine within what is known (default: %(default)s)",
    )
    group.add_argument(
        "--host-kv-gb",
        type=natural_float,
        default=0.0,
        metavar="GB",
        help="host memory a chip for KV that HBM has no room for (default: 0)",
    )
    _add_output_options(parser)
    parser.set_defaults(run=run_bench)


def _add_comparison_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the comparison")
    group.add_argument(
        "--policies",
        type=_names,
        default="panjiu,home_for_life,llmd_default,kv_cost,round_robin",
        metavar="A,B,...",
        help=f"all, or some of: {', '.join(POLICIES)} (default: %(default)s)",
    )
    group.add_argument(
        "--baseline",
        default="panjiu",
        metavar="NAME",
        help="whose standing against the best of the others is told (default: %(default)s)",
    )
    group.add_argument(
        "--load",
        type=_loads,
        default="0.6,0.9,1.2",
        metavar="L,L,...",
        help="sessions that come over those a fluid plan could serve (default: %(default)s)",
    )
    group.add_argument(
        "--seeds", type=positive_int, default=3, metavar="N", help="runs of each (default: 3)"
    )
    group.add_argument(
        "--jobs",
        type=positive_int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="runs at a time (default: one a core)",
    )


def _add_session_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the sessions")
    group.add_argument(
        "--sessions",
        default="coding-agents",
        metavar="SOURCE",
        help=f"a trace file or folder, or a generator: {', '.join(GENERATORS)} "
        "(default: %(default)s)",
    )
    group.add_argument("--limit", type=positive_int, metavar="N", help="draw from N sessions")
    group.add_argument(
        "--num-sessions",
        type=positive_int,
        metavar="N",
        help="so many come in each run, again and again if need be (default: each once)",
    )
    group.add_argument(
        "--max-gap-s",
        type=natural_float,
        default=300.0,
        metavar="S",
        help="cut longer tool gaps to S seconds (default: %(default)s, InferenceX' rule)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the results")
    group.add_argument(
        "--slo-slowdown",
        type=positive_float,
        default=5.0,
        metavar="X",
        help="a session is good if its model calls took X times as long as alone, or less "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--out",
        metavar="DIR",
        help="keep every run there; the same command goes on where it was stopped",
    )
    group.add_argument("--json", metavar="OUT", help="write all runs to a file, - for stdout")
    group.add_argument("--csv", metavar="OUT", help="write one row a run")
    group.add_argument("--html", metavar="OUT", help="write a self-contained page with charts")


def run_bench(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    _check_outputs(args)
    names = list(POLICIES) if args.policies == ["all"] else args.policies
    for name in (*names, args.baseline):
        policy_entry(name)
    machine = emulated_machine(args)
    bench = _bench(args, machine)
    cells = [
        Cell(policy, load, seed)
        for seed in range(args.seeds)
        for load in args.load
        for policy in names
    ]
    console = Console(stderr=args.json == "-")
    store = CellStore(None if args.out is None else Path(args.out), bench_digest(bench))
    failed, was_stopped = _run(bench, cells, store, args.jobs)
    results = [store.results[cell] for cell in cells if cell in store.results]
    _report(args, machine, bench, results, console)
    for failure in failed:
        cell = failure.cell
        Console(stderr=True).print(
            f"failed: {cell.policy} at load {cell.load:g}, seed {cell.seed}: {failure.error}",
            highlight=False,
            markup=False,
        )
    if was_stopped:
        Console(stderr=True).print(f"interrupted; {len(results)} of {len(cells)} runs were done")
        return EXIT_INTERRUPTED
    return EXIT_FAILURE if failed else 0


def _bench(args: argparse.Namespace, machine: EmulatedMachine) -> Bench:
    workload = load_workload(args.sessions, limit=args.limit, seed=0, max_gap_s=args.max_gap_s)
    if workload.arrives_s is not None:
        raise ConfigError(
            f"--sessions {args.sessions}: its requests come at set times; bench needs sessions, "
            "whose turns wait for replies"
        )
    band = Band(args.band)
    deployment = machine.deployment(band, workload.block_size_tokens)
    try:
        capacity = rack_capacity(workload, deployment, band)
    except ValueError as error:
        raise ConfigError(
            f"--sessions {args.sessions}: {error} ({deployment.kv_tokens:,} tokens); use a larger "
            "--tp"
        ) from error
    return Bench(
        workload=workload,
        deployment=deployment,
        capacity=capacity,
        band=band,
        num_sessions=args.num_sessions,
        host_bytes_per_chip=args.host_kv_gb * 1e9,
        slo_slowdown=args.slo_slowdown,
        limits=machine.limits,
    )


def _run(
    bench: Bench, cells: Sequence[Cell], store: CellStore, num_jobs: int
) -> tuple[list[FailedCell], bool]:
    """Run the cells that the store lacks; return those that failed, and whether it was stopped."""
    missing = [cell for cell in cells if cell not in store.results]
    columns = (
        TextColumn("{task.description:>24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    if len(missing) < len(cells):
        console.print(f"{len(cells) - len(missing)} of {len(cells)} runs were done before")
    failed: list[FailedCell] = []
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(cells), completed=len(cells) - len(missing))
            for result in sweep(bench, missing, min(num_jobs, max(1, len(missing)))):
                if isinstance(result, FailedCell):
                    failed.append(result)
                else:
                    store.add(result)
                    progress.update(task, description=f"{result.policy} at {result.load:g}")
                progress.advance(task)
    except KeyboardInterrupt:
        return failed, True
    return failed, False


def _report(
    args: argparse.Namespace,
    machine: EmulatedMachine,
    bench: Bench,
    results: Sequence[CellResult],
    console: Console,
) -> None:
    for load in sorted({result.load for result in results}):
        console.print(bench_table(results, load))
        for line in verdict_lines(results, args.baseline, load):
            console.print(line, highlight=False, soft_wrap=True)
        console.print()
    facts = _facts(bench)
    for fact in facts:
        console.print(f"[dim]{fact}[/dim]", highlight=False)
    if args.json is not None:
        _write_json(args.json, bench.capacity, results)
    if args.csv is not None:
        with Path(args.csv).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(CellResult.model_fields))
            writer.writeheader()
            writer.writerows(result.model_dump() for result in results)
    if args.html is not None:
        page = BenchPage(
            results,
            args.baseline,
            facts,
            assumptions(machine.rack, machine.chip),
            shlex.join(["panjiu", *sys.argv[1:]]),
        )
        Path(args.html).write_text(bench_page(page), encoding="utf-8")
        console.print(f"page: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)


def _facts(bench: Bench) -> tuple[str, ...]:
    capacity, workload = bench.capacity, bench.workload
    return (
        bench.deployment.describe(),
        (
            f"{bench.num_sessions or len(workload.sessions)} sessions a run, drawn from "
            f"{workload.name}; alone on the rack one takes {capacity.alone_s:,.0f} s on average"
        ),
        (
            f"load 1 is {3600 * capacity.sessions_per_s:.3g} sessions an hour: compute "
            f"{100 * capacity.compute_share:.0f} %, HBM {100 * capacity.room_share:.0f} % used, KV "
            f"kept through {100 * capacity.held_share:.0f} % of the token-seconds of gaps"
        ),
        *workload.report_notes(),
    )


def _write_json(target: str, capacity: Capacity, results: Sequence[CellResult]) -> None:
    data = {
        "capacity_sessions_per_s": capacity.sessions_per_s,
        "alone_s": capacity.alone_s,
        "runs": [result.model_dump() for result in results],
    }
    text = json.dumps(data, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def _check_outputs(args: argparse.Namespace) -> None:
    for name in ("json", "csv", "html"):
        target = getattr(args, name)
        if target is None or (target == "-" and name == "json"):
            continue
        path = Path(target)
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError(f"--{name} {target}: not a file in an existing directory")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names of policies, separated by commas, or all")
    return list(dict.fromkeys(names))


def _loads(text: str) -> list[float]:
    loads = [positive_float(part.strip()) for part in text.split(",")]
    return sorted(set(loads))
