"""``panjiu loadtest``: sessions as load on any OpenAI-compatible server."""

from __future__ import annotations

import argparse
import os
import signal
import time
from importlib.util import find_spec

import anyio
from rich.console import Console

from agent_runtime.backends.vllm_servers.engine_connections import open_engine_http
from agent_runtime.cli.loadtest_compare import add_compare_command
from agent_runtime.cli.loadtest_options import add_load_options, load_plan
from agent_runtime.cli.loadtest_outputs import check_load_outputs, leave_load
from agent_runtime.cli.loadtest_progress import LoadProgress
from agent_runtime.cli.open_files import raise_open_files
from agent_runtime.clock import monotonic_s
from agent_runtime.errors import told_plainly
from agent_runtime.garbage import collect_garbage_rarely
from agent_runtime.load_test.load_plan import LoadPlan
from agent_runtime.load_test.load_run import LoadRun
from agent_runtime.load_test.summarise import summarise

KEY_VARIABLE = "PANJIU_LOADTEST_API_KEY"

DESCRIPTION = f"""\
Load any OpenAI-compatible server with agent sessions and see what a client sees.

A session is a chain of calls over one growing conversation: each prompt has the replies before it,
tool gaps lie between, sub-agents run inside, and prompts share text where the workload's do. In an
open loop sessions start when they are due, however slow the server is, and latencies count from
then. The server's key, if any, is in {KEY_VARIABLE}."""

EXAMPLES = """\
examples:
  panjiu loadtest --url http://127.0.0.1:8000 --sessions 64 --duration 5m --slo-ttft 2 \\
      --slo-tpot 50ms
                                              64 coding agents at a time
  panjiu loadtest --url http://router:8000 --workload traces.jsonl.gz --arrival poisson:0.5 \\
      --duration 10m --json router-a.json --html router-a.html
                                              an open loop: a session every two seconds
  panjiu loadtest --url http://127.0.0.1:8000 --workload api-agents --arrival trace --limit 500
                                              each session once, when the trace says
  panjiu loadtest compare router-a.json router-b.json
                                              two runs beside each other, with intervals

exit codes: 0 done; 1 the server can't be loaded, or no turn was answered; 2 the command line is
wrong; 130 interrupted: what was seen so far is shown and written
"""

EXIT_FAILURE, EXIT_INTERRUPTED = 1, 130


def add_loadtest_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``loadtest`` and its ``compare``."""
    parser = commands.add_parser(
        "loadtest",
        help="load any OpenAI-compatible server with agent sessions",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_load_options(parser)
    group = parser.add_argument_group("the results")
    group.add_argument(
        "--json", metavar="OUT", help="write all figures, - for stdout; 'compare' reads it"
    )
    group.add_argument("--csv", metavar="OUT", help="write one row a turn")
    group.add_argument("--html", metavar="OUT", help="write a self-contained page with charts")
    parser.set_defaults(run=run_loadtest)
    add_compare_command(parser.add_subparsers(title="actions", metavar="[compare A B]"))


def run_loadtest(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    check_load_outputs(args)
    plan = load_plan(args)
    raise_open_files()
    console = Console(stderr=True)
    runs: list[LoadRun] = []
    interrupted = False
    try:
        with told_plainly():
            interrupted = anyio.run(
                _run, plan, console, runs, backend_options={"use_uvloop": _has_uvloop()}
            )
    except KeyboardInterrupt:
        interrupted = True
    summary = summarise(runs[0], interrupted=interrupted) if runs else None
    if summary is None:
        raise KeyboardInterrupt
    leave_load(summary, runs[0].log, args)
    if interrupted:
        console.print("interrupted; that is what was seen so far")
        return EXIT_INTERRUPTED
    return 0 if summary.turns.answered else EXIT_FAILURE


async def _run(plan: LoadPlan, console: Console, runs: list[LoadRun]) -> bool:
    """Run the plan; return whether it was terminated before its end."""
    async with open_engine_http(os.environ.get(KEY_VARIABLE)) as http:
        progress = LoadProgress(plan, console)
        run = LoadRun(plan, http, monotonic_s, time.process_time, progress.note)
        runs.append(run)
        collect_garbage_rarely()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.show, run)
            tasks.start_soon(_stop_when_terminated, tasks.cancel_scope)
            await run.run()
            tasks.cancel_scope.cancel()
            return False
    return True


async def _stop_when_terminated(scope: anyio.CancelScope) -> None:
    """Have SIGTERM end a run as Ctrl-C does, with its report."""
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


def _has_uvloop() -> bool:
    return find_spec("uvloop") is not None
