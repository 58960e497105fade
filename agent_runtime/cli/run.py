"""``panjiu run``: somebody's agent program against the emulated rack, in virtual or real time."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
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
from agent_runtime.cli.run_outputs import (
    add_output_options,
    check_outputs,
    event_log,
    print_runs,
    write_html,
    write_json,
)
from agent_runtime.cli.run_progress import RunProgress
from agent_runtime.cli.script_run import ScriptRun, run_live, run_virtual
from agent_runtime.emulated_service import ServiceOptions
from agent_runtime.errors import ConfigError
from agent_runtime.measurement.summary import RunDetail
from hw_model.claim import Band
from hw_model.ttft_boundary import TtftBoundary
from scheduler.decision import Decision

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
  panjiu run agents.py --virtual --model qwen3-8b --replicas 4 --html report.html
  panjiu run agents.py --virtual -- --agents 300              arguments of the program after --

exit code: the program's own; 130 interrupted"""


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
    add_service_options(group)
    add_rack_options(parser)
    add_emulated_model_options(parser)
    results = parser.add_argument_group("the results")
    add_ttft_boundary_option(results)
    add_output_options(results)
    results.add_argument("--quiet", action="store_true", help="no progress line, no table")
    parser.set_defaults(run=run_program)


def run_program(args: argparse.Namespace) -> int:
    """Carry out the command; return the program's exit code."""
    check_outputs(args)
    if args.virtual and args.speed is not None:
        raise ConfigError("--speed: virtual time has no speed; leave out --virtual or --speed")
    machine, model = emulated_machine(args), emulated_model(args)
    script = _script(args.script)
    if args.virtual:
        _fix_hash_seed(args)
    progress = RunProgress(time.perf_counter, shown=not args.quiet and sys.stderr.isatty())
    with event_log(args.event_log) as log, progress.line():
        run = ScriptRun(
            script=script,
            args=args.script_args,
            deployment=machine.deployment(Band(args.band), args.block_size),
            options=_service_options(args, machine),
            emulated_model=model,
            stopwatch=time.perf_counter,
            on_decision=_all_of(progress.on_decision, log),
        )
        outcome = run_virtual(run) if args.virtual else anyio.run(run_live, run, args.speed or 1.0)
    _report(args, machine, outcome.detail)
    return outcome.exit_code


def _service_options(args: argparse.Namespace, machine: EmulatedMachine) -> ServiceOptions:
    return ServiceOptions(
        band=Band(args.band),
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


def _all_of(
    first: Callable[[Decision], None], second: Callable[[Decision], None] | None
) -> Callable[[Decision], None]:
    def both(decision: Decision) -> None:
        first(decision)
        if second is not None:
            second(decision)

    return both


def _report(args: argparse.Namespace, machine: EmulatedMachine, run: RunDetail) -> None:
    console = Console(stderr=True)
    if not run.summary.sessions.total:
        console.print("the program made no model call", highlight=False)
    elif not args.quiet:
        print_runs(console, [run])
    if args.json is not None:
        write_json(args.json, [run], as_list=False)
    if args.html is not None:
        name = Path(args.script).name
        write_html(args.html, [run], machine, name=name, notes=())
        if not args.quiet:
            console.print(f"report: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)
