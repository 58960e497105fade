"""``panjiu simulate``: a workload on the emulated rack, in virtual time."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from agent_runtime.cli.rack_options import (
    EmulatedMachine,
    add_rack_options,
    add_ttft_boundary_option,
    emulated_machine,
    natural_float,
    positive_int,
)
from agent_runtime.errors import ConfigError
from agent_runtime.measurement.summary import RunDetail
from agent_runtime.report.assumptions import assumptions
from agent_runtime.report.html_page import html_report
from agent_runtime.report.table import summary_table
from agent_runtime.simulation.rack_simulation import SimulationOptions
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.sources import GENERATORS, load_workload
from hw_model.claim import Band
from hw_model.ttft_boundary import TtftBoundary

DESCRIPTION = """\
Run agent sessions on the emulated rack in virtual time and report what they saw.

A session is closed-loop: each turn starts a tool gap after the turn before it ended. Sub-agents run
inside their parents. The M890's HBM bandwidth and FLOPS are unpublished, so results come as a band:
low, base and high."""

PROGRESS_TURNS = 50
"""The bar moves every so many turns."""

EXAMPLES = """\
examples:
  panjiu simulate                                     256 generated coding agents, all three bands
  panjiu simulate --sessions traces.jsonl.gz --band base --limit 50
                                                      the first 50 sessions of a recorded trace
  panjiu simulate --policy round_robin --json -       what ignoring the KV cache costs, as JSON
  panjiu simulate --replicas 8 --html report.html     a quarter of the rack, with charts
"""


def add_simulate_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "simulate",
        help="run agent sessions on the emulated rack in virtual time",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("the sessions")
    group.add_argument(
        "--sessions",
        default="coding-agents",
        metavar="SOURCE",
        help="a trace of sessions or of requests (JSONL, .gz or not), or a generator: "
        f"{', '.join(GENERATORS)} (default: %(default)s)",
    )
    group.add_argument("--limit", type=positive_int, metavar="N", help="at most N sessions")
    group.add_argument(
        "--max-gap-s", type=natural_float, metavar="S", help="cut longer tool gaps to S seconds"
    )
    group.add_argument(
        "--host-kv-gb",
        type=natural_float,
        default=0.0,
        metavar="GB",
        help="host memory a chip for KV that HBM has no room for (default: 0)",
    )
    group.add_argument(
        "--start-window-s",
        type=natural_float,
        default=60.0,
        metavar="S",
        help="sessions start at random within the first S seconds (default: %(default)s)",
    )
    add_rack_options(parser)
    group = parser.add_argument_group("the results")
    group.add_argument(
        "--band",
        choices=[*(band.value for band in Band), "all"],
        default="all",
        help="which machine within what is known (default: all)",
    )
    add_ttft_boundary_option(group)
    group.add_argument("--json", metavar="OUT", help="write the summary to a file, - for stdout")
    group.add_argument("--html", metavar="OUT", help="write a self-contained page with charts")
    parser.set_defaults(run=run_simulate)


def run_simulate(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    for option in ("json", "html"):
        _check_writable(option, getattr(args, option))
    machine = emulated_machine(args)
    workload = load_workload(
        args.sessions, limit=args.limit, seed=args.seed, max_gap_s=args.max_gap_s
    )
    bands = list(Band) if args.band == "all" else [Band(args.band)]
    console = Console(stderr=args.json == "-")
    runs = _run_bands(args, machine, workload, bands)
    console.print(summary_table(runs))
    console.print(f"[dim]{runs[0].deployment}[/dim]", highlight=False)
    for note in dict.fromkeys((*workload.notes, *(note for run in runs for note in run.notes))):
        console.print(f"[dim]note: {note}[/dim]", highlight=False)
    if args.json is not None:
        _write_json(args.json, runs, as_list=args.band == "all")
    if args.html is not None:
        _write_html(args.html, runs, workload, machine)
        console.print(f"report: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)
    return 0 if any(run.summary.sessions.completed for run in runs) else 1


def _run_bands(
    args: argparse.Namespace, machine: EmulatedMachine, workload: Workload, bands: list[Band]
) -> list[RunDetail]:
    deployments = [machine.deployment(band, workload.block_size_tokens) for band in bands]
    num_turns = sum(script.num_turns() for script in workload.sessions)
    columns = (
        TextColumn("{task.description:>5}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("turns"),
        TimeElapsedColumn(),
    )
    runs = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = [progress.add_task(band.value, total=num_turns) for band in bands]
        for band, deployment, task in zip(bands, deployments, tasks, strict=True):
            options = SimulationOptions(
                band=band,
                policy=args.policy,
                seed=args.seed,
                start_window_s=args.start_window_s,
                limits=machine.limits,
                host_bytes_per_chip=args.host_kv_gb * 1e9,
                ttft_boundary=TtftBoundary(args.ttft_boundary),
            )

            def on_turn(done: int, task: TaskID = task) -> None:
                if done % PROGRESS_TURNS == 0:
                    progress.update(task, completed=done)

            runs.append(
                simulate(
                    workload, deployment, options, stopwatch=time.perf_counter, on_turn=on_turn
                )
            )
            progress.update(task, completed=num_turns)
    return runs


def _check_writable(option: str, target: str | None) -> None:
    """Fail before the work and not after it."""
    if target is None or target == "-":
        return
    path = Path(target)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"--{option} {target}: not a file in an existing directory")


def _write_json(target: str, runs: Sequence[RunDetail], *, as_list: bool) -> None:
    summaries = [run.summary.model_dump(mode="json") for run in runs]
    text = json.dumps(summaries if as_list else summaries[0], indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def _write_html(
    target: str, runs: Sequence[RunDetail], workload: Workload, machine: EmulatedMachine
) -> None:
    page = html_report(
        runs,
        workload_name=workload.name,
        workload_notes=workload.notes,
        assumptions=assumptions(machine.rack, machine.chip),
        command=shlex.join(["panjiu", *sys.argv[1:]]),
    )
    Path(target).write_text(page, encoding="utf-8")
