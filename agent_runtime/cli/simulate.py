"""``panjiu simulate``: a workload on the emulated rack, in virtual time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
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
from agent_runtime.cli.recording_option import (
    HELP,
    ReplayOption,
    RunRecording,
    watch_engines,
)
from agent_runtime.cli.run_outputs import (
    add_output_options,
    check_outputs,
    event_log,
    print_runs,
    write_html,
    write_json,
)
from agent_runtime.errors import ConfigError
from agent_runtime.measurement.decision_listeners import all_of
from agent_runtime.measurement.summary import RunDetail
from agent_runtime.simulation.rack_simulation import SimulationOptions
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.agentx import MAX_IDLE_S, agentx_replay
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.sources import GENERATORS, load_workload
from hw_model.claim import Band
from hw_model.ttft_boundary import TtftBoundary
from scheduler.decision import Decision

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
  panjiu simulate --sessions batch.jsonl --concurrency 512
                                                      an OpenAI batch, so many at a time
  panjiu simulate --sessions traces/ --replay agentx --concurrency 64
                                                      as the AgentX benchmark replays them
  panjiu simulate --policy round_robin --json -       what ignoring the KV cache costs, as JSON
  panjiu simulate --replicas 8 --html report.html     a quarter of the rack, with charts
  panjiu simulate --replay run.html                   the rack at work, to be watched in a browser
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
    _add_session_options(parser)
    add_rack_options(parser)
    group = parser.add_argument_group("the results")
    group.add_argument(
        "--band",
        choices=[*(band.value for band in Band), "all"],
        default="all",
        help="which machine within what is known (default: all)",
    )
    add_ttft_boundary_option(group)
    add_output_options(group)
    parser.set_defaults(run=run_simulate, recording=None)


def _add_session_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the sessions")
    group.add_argument(
        "--sessions",
        default="coding-agents",
        metavar="SOURCE",
        help="a trace file or a folder of them (agent sessions, Mooncake requests, an OpenAI "
        "batch; plain or gzipped; docs/workloads.md), or a generator: "
        f"{', '.join(GENERATORS)} (default: %(default)s)",
    )
    group.add_argument("--limit", type=positive_int, metavar="N", help="at most N sessions")
    group.add_argument(
        "--max-gap-s", type=natural_float, metavar="S", help="cut longer tool gaps to S seconds"
    )
    group.add_argument(
        "--replay",
        action=ReplayOption,
        metavar="agentx|OUT.html",
        help="agentx: by the rules of the AgentX benchmark: --concurrency live sessions, the first "
        "ones from their middle on, no KV shared between them, long pauses cut "
        f"(docs/workloads.md). OUT.html: {HELP}; may be given for both",
    )
    group.add_argument(
        "--concurrency",
        type=positive_int,
        metavar="N",
        help="so many sessions at a time, the next when one ends (default: all when they come)",
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


def run_simulate(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    check_outputs(args)
    if args.event_log is not None and args.band == "all":
        raise ConfigError("--event-log: three runs can't share a file; choose one --band")
    machine = emulated_machine(args)
    workload = load_workload(
        args.sessions, limit=args.limit, seed=args.seed, max_gap_s=args.max_gap_s
    )
    if args.replay == "agentx":
        workload = agentx_replay(workload, num_lanes=args.concurrency, seed=args.seed)
    bands = chosen_bands(args)
    console = Console(stderr=args.json == "-")
    recording = RunRecording(args.recording, bands, args.policy)
    with event_log(args.event_log) as on_decision:
        runs = _run_bands(args, machine, workload, recording, on_decision)
    print_runs(console, runs, workload.report_notes())
    if args.json is not None:
        write_json(args.json, runs, as_list=args.band == "all")
    if args.html is not None:
        write_html(args.html, runs, machine, name=workload.name, notes=workload.report_notes())
        console.print(f"report: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)
    if (written := recording.write()) is not None:
        console.print(f"replay: {written}", highlight=False, soft_wrap=True)
    return 0 if any(run.summary.sessions.completed for run in runs) else 1


def chosen_bands(args: argparse.Namespace) -> list[Band]:
    """Return the bands that are run."""
    return list(Band) if args.band == "all" else [Band(args.band)]


def _options(args: argparse.Namespace, machine: EmulatedMachine, band: Band) -> SimulationOptions:
    return SimulationOptions(
        band=band,
        policy=args.policy,
        seed=args.seed,
        start_window_s=args.start_window_s,
        limits=machine.limits,
        concurrency=args.concurrency,
        max_idle_s=MAX_IDLE_S if args.replay == "agentx" else float("inf"),
        host_bytes_per_chip=args.host_kv_gb * 1e9,
        ttft_boundary=TtftBoundary(args.ttft_boundary),
    )


def _run_bands(
    args: argparse.Namespace,
    machine: EmulatedMachine,
    workload: Workload,
    recording: RunRecording,
    on_decision: Callable[[Decision], None] | None,
) -> list[RunDetail]:
    bands = chosen_bands(args)
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

            def on_turn(done: int, task: TaskID = task) -> None:
                if done % PROGRESS_TURNS == 0:
                    progress.update(task, completed=done)

            recorder = recording.begin(band, deployment)
            runs.append(
                simulate(
                    workload,
                    deployment,
                    _options(args, machine, band),
                    stopwatch=time.perf_counter,
                    on_turn=on_turn,
                    on_decision=all_of(on_decision, None if recorder is None else recorder.take),
                    on_engines=watch_engines(recorder),
                )
            )
            progress.update(task, completed=num_turns)
    return runs
