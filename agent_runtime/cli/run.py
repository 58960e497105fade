"""``panjiu run``: somebody's agent program against the emulated rack, in virtual or real time."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import anyio
from rich.console import Console

from agent_runtime.cli.emulated_model_options import add_emulated_model_options, emulated_model
from agent_runtime.cli.rack_options import (
    EmulatedMachine,
    add_rack_options,
    add_service_options,
    add_ttft_boundary_option,
    emulated_machine,
    positive_float,
)
from agent_runtime.cli.recording_option import (
    RunRecording,
    add_recording_option,
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
from agent_runtime.cli.run_progress import RunProgress
from agent_runtime.cli.script_run import INTERRUPTED, RunOutcome, ScriptRun, run_live, run_virtual
from agent_runtime.emulated_service import ServiceOptions
from agent_runtime.errors import ConfigError
from agent_runtime.measurement.decision_listeners import all_of
from agent_runtime.measurement.summary import RunDetail
from hw_model.claim import Band
from hw_model.ttft_boundary import TtftBoundary

DESCRIPTION = """\
Run your own agent program, unmodified, against the emulated rack, and report what the rack did.

The program finds the rack through OPENAI_BASE_URL, so any client that reads it will do, with any
model name. With --virtual its clock jumps from event to event: hours of agents take seconds, and
the same seed gives the same run to the byte. asyncio, anyio, time.sleep, time.time and datetime
follow the virtual clock; httpx and httpx2 (what openai and most frameworks use) reach the rack
inside the process. Threads and other servers have no place in it, and are errors that say so.

Without --virtual the program is a process of its own, and the rack answers on a port of this
machine, in real time or --speed times faster; the program's own pauses take as long as ever."""

EXAMPLES = """\
examples:
  panjiu run examples/openai_tools.py --virtual --seed 1
  panjiu run examples/openai_tools.py --speed 20              the same program in real time
  panjiu run agents.py --virtual --band all                   and the slowest and fastest machine
  panjiu run agents.py --virtual --model qwen3-8b --replicas 4 --html report.html
  panjiu run agents.py --virtual --replay run.html            to be watched in a browser
  panjiu run agents.py --virtual -- --agents 300              arguments of the program after --

exit code: the program's own; 130 interrupted"""


ONE_MACHINE = (
    "this is one machine within what is known of the hardware; --virtual --band all shows the "
    "band: low, base and high."
)


def add_run_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "run",
        help="run your own agent program against the emulated rack",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("script", metavar="SCRIPT.py", help="the program")
    group = parser.add_argument_group("the run")
    group.add_argument("--virtual", action="store_true", help="in virtual time")
    group.add_argument(
        "--speed",
        type=positive_float,
        metavar="X",
        help="emulated seconds per second, without --virtual (default: 1)",
    )
    add_service_options(
        group,
        ["all"],
        "; all, with --virtual, runs the program three times and prints what it prints once",
    )
    add_rack_options(parser)
    add_emulated_model_options(parser)
    results = parser.add_argument_group("the results")
    add_ttft_boundary_option(results)
    add_output_options(results)
    add_recording_option(results)
    results.add_argument("--quiet", action="store_true", help="no progress line, no table")
    parser.set_defaults(run=run_program)


def run_program(args: argparse.Namespace) -> int:
    """Carry out the command; return the program's exit code."""
    check_outputs(args)
    _check_times(args)
    machine, model = emulated_machine(args), emulated_model(args)
    script = _script(args.script)
    if args.virtual:
        _fix_hash_seed(args)
    bands = list(Band) if args.band == "all" else [Band(args.band)]
    progress = RunProgress(time.perf_counter, shown=not args.quiet and sys.stderr.isatty())
    outcomes: dict[Band, RunOutcome] = {}
    recording = RunRecording(args.recording, bands, args.policy)
    with event_log(args.event_log) as log, progress.line():
        for band in sorted(bands, key=lambda band: band is not Band.BASE):
            deployment = machine.deployment(band, args.block_size)
            recorder = recording.begin(band, deployment)
            run = ScriptRun(
                script=script,
                args=args.script_args,
                deployment=deployment,
                options=_service_options(args, machine, band),
                emulated_model=model,
                stopwatch=time.perf_counter,
                on_decision=all_of(
                    progress.on_decision, log, None if recorder is None else recorder.take
                ),
                on_engines=watch_engines(recorder),
            )
            outcomes[band] = _carried_out(args, run, silent=bool(outcomes))
            if outcomes[band].exit_code == INTERRUPTED:
                break
    runs = [outcomes[band].detail for band in bands if band in outcomes]
    _report(args, machine, runs)
    if (written := recording.write()) is not None and not args.quiet:
        Console(stderr=True).print(f"replay: {written}", highlight=False, soft_wrap=True)
    return next(iter(outcomes.values())).exit_code


def _carried_out(args: argparse.Namespace, run: ScriptRun, *, silent: bool) -> RunOutcome:
    if not args.virtual:
        return anyio.run(run_live, run, args.speed or 1.0)
    if not silent:
        return run_virtual(run)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return run_virtual(run)


def _check_times(args: argparse.Namespace) -> None:
    if args.virtual and args.speed is not None:
        raise ConfigError("--speed: virtual time has no speed; leave out --virtual or --speed")
    if args.band == "all" and not args.virtual:
        raise ConfigError("--band all: only with --virtual, where a run can be had again")
    if args.band == "all" and args.event_log is not None:
        raise ConfigError("--event-log: three runs can't share a file; choose one --band")


def _service_options(
    args: argparse.Namespace, machine: EmulatedMachine, band: Band
) -> ServiceOptions:
    return ServiceOptions(
        band=band,
        policy=args.policy,
        seed=args.seed,
        limits=machine.limits,
        ttft_boundary=TtftBoundary(args.ttft_boundary),
        any_model_name=True,
        measured=True,
    )


def _script(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"{name}: no such file; name a Python program to run")
    return path


def _fix_hash_seed(args: argparse.Namespace) -> None:
    """Start again with a fixed order of sets of strings; an interpreter has one from its start."""
    if args.owns_process and sys.flags.hash_randomization and "PYTHONHASHSEED" not in os.environ:
        environment = {**os.environ, "PYTHONHASHSEED": str(args.seed % 2**32)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


def _report(args: argparse.Namespace, machine: EmulatedMachine, runs: list[RunDetail]) -> None:
    console = Console(stderr=True)
    if not any(run.summary.sessions.total for run in runs):
        console.print("the program made no model call", highlight=False)
    elif not args.quiet:
        print_runs(console, runs, (ONE_MACHINE,) if len(runs) == 1 else ())
    if args.json is not None:
        write_json(args.json, runs, as_list=args.band == "all")
    if args.html is not None:
        name = Path(args.script).name
        write_html(args.html, runs, machine, name=name, notes=())
        if not args.quiet:
            console.print(f"report: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)
