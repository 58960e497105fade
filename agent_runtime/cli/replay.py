"""``panjiu replay``: a page that plays a run again, from its event log."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from agent_runtime.cli.rack_options import (
    add_machine_options,
    add_service_options,
    emulated_machine,
)
from agent_runtime.cli.recording_option import METAVAR, recording_target
from agent_runtime.errors import ConfigError, TraceError
from agent_runtime.measurement.decision_reading import read_decisions
from agent_runtime.rack_view.layouts import emulated_layout
from agent_runtime.rack_view.reckoned_gauges import ReckonedGauges
from agent_runtime.rack_view.recorder import ViewRecorder
from agent_runtime.rack_view.recording_file import write_recording
from agent_runtime.workload.trace_lines import GZIP_MAGIC, numbered_lines
from hw_model.claim import Band
from hw_model.deployment import Deployment
from scheduler.commands import Pull, Refuse
from scheduler.decision import Decision
from scheduler.events import ReplicaDown, ReplicaUp

PROGRESS_LINES = 2_000
"""The bar moves every so many lines."""

DESCRIPTION = """\
Make a page that plays a run again from the event log that 'panjiu simulate' and 'panjiu run' write
with --event-log. Name the rack as the run did: the log has none of it, only what was decided.

A log doesn't tell how full the KV of replicas was, so that is reckoned from the contexts that ran
there. 'simulate --replay' and 'run --replay' record what replicas report."""

EXAMPLES = """\
examples:
  panjiu simulate --band base --event-log run.jsonl
  panjiu replay run.jsonl --out run.html
  panjiu replay run.jsonl --model qwen3-8b --replicas 4 --out run.html
"""


def add_replay_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "replay",
        help="a page that plays a run again, from its event log",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", metavar="LOG", help="the event log of a run")
    parser.add_argument(
        "--out",
        type=recording_target,
        required=True,
        metavar=METAVAR,
        help="the page to write, or with OUT.jsonl its messages",
    )
    add_service_options(add_machine_options(parser))
    parser.add_argument(
        "--policy",
        default="panjiu",
        metavar="NAME",
        help="who decided, for the page's heading (default: %(default)s)",
    )
    parser.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    path, out = Path(args.log), Path(args.out)
    if not path.is_file():
        raise ConfigError(f"{args.log}: no such file; write one with simulate --event-log")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {args.out}: not a file in an existing directory")
    band = Band(args.band)
    deployment = emulated_machine(args).deployment(band, args.block_size)
    layout = emulated_layout(
        deployment, band=band, policy=args.policy, source="recording", fill="reckoned"
    )
    gauges = ReckonedGauges(deployment.num_replicas, deployment.kv_tokens)
    recorder = ViewRecorder(layout, gauges)
    number = 0
    for number, decision in read_decisions(_lines(args.log), args.log):
        _check_replicas(decision, deployment, args.log, number)
        gauges.take(decision)
        recorder.take(decision)
    if not number:
        raise TraceError("there is no decision in it", path=args.log)
    write_recording(out, recorder.messages())
    Console(stderr=True).print(f"replay: {out.resolve()}", highlight=False, soft_wrap=True)
    return 0


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield the log's lines, and show how far it is read."""
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=_num_bytes(path))
        num_read = 0
        for number, line in numbered_lines(path):
            num_read += len(line)
            if number % PROGRESS_LINES == 0:
                progress.update(task, completed=num_read)
            yield number, line


def _num_bytes(path: str) -> int | None:
    """Return how many bytes there are to read, None where they are compressed."""
    with Path(path).open("rb") as file:
        return None if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC else Path(path).stat().st_size


def _check_replicas(decision: Decision, deployment: Deployment, path: str, line: int) -> None:
    """Raise if a decision is about a replica that this rack has not.

    Raises:
        TraceError: Names it.
    """
    named: list[tuple[str, int]] = []
    if isinstance(decision.event, ReplicaDown | ReplicaUp):
        named.append(("replica", decision.event.replica_id))
    for number, command in enumerate(decision.commands):
        if isinstance(command, Refuse):
            continue
        named.append((f"do[{number}].replica", command.replica_id))
        if isinstance(command, Pull):
            named.append((f"do[{number}].from", command.source_id))
    for field, replica_id in named:
        if not 0 <= replica_id < deployment.num_replicas:
            raise TraceError(
                f"replica {replica_id}, but there are {deployment.num_replicas} here "
                f"({deployment.describe()}): name --rack, --model, --tp and --replicas as the run "
                "did",
                path=path,
                line=line,
                field=field,
            )
