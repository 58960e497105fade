"""What ``simulate`` and ``run`` leave: a table, JSON, a page, an event log."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from agent_runtime.cli.rack_options import EmulatedMachine
from agent_runtime.errors import ConfigError
from agent_runtime.measurement.decision_lines import decision_line
from agent_runtime.measurement.summary import RunDetail
from agent_runtime.report.assumptions import assumptions
from agent_runtime.report.html_page import html_report
from agent_runtime.report.table import summary_table
from scheduler.decision import Decision

TARGETS = ("json", "html", "event_log", "recording")

OPTIONS = {"recording": "replay"}
"""Where an option has another name than what it sets."""


def add_output_options(group: argparse._ArgumentGroup) -> None:
    """Add ``--json``, ``--html`` and ``--event-log``."""
    group.add_argument("--json", metavar="OUT", help="write the summary to a file, - for stdout")
    group.add_argument("--html", metavar="OUT", help="write a self-contained page with charts")
    group.add_argument(
        "--event-log",
        metavar="OUT",
        help="write every decision of the scheduler, a JSON object a line: the same seed gives the "
        "same bytes",
    )


def check_outputs(args: argparse.Namespace) -> None:
    """Fail before the work and not after it.

    Raises:
        ConfigError: A target that can't be a file.
    """
    for name in TARGETS:
        target = vars(args).get(name)  # not every command has all of them
        if target is None or (target == "-" and name == "json"):
            continue
        path = Path(target)
        if path.is_dir() or not path.absolute().parent.is_dir():
            option = OPTIONS.get(name, name.replace("_", "-"))
            raise ConfigError(f"--{option} {target}: not a file in an existing directory")


@contextmanager
def event_log(target: str | None) -> Iterator[Callable[[Decision], None] | None]:
    """Open the event log; give what writes a decision to it, None without a target."""
    if target is None:
        yield None
        return
    with Path(target).open("w", encoding="utf-8") as file:
        yield lambda decision: print(decision_line(decision), file=file)


def print_runs(console: Console, runs: Sequence[RunDetail], notes: Sequence[str] = ()) -> None:
    """Print the table of runs, what served them, and what a reader should know."""
    console.print(summary_table(runs))
    console.print(f"[dim]{runs[0].deployment}[/dim]", highlight=False)
    for note in dict.fromkeys((*notes, *(note for run in runs for note in run.notes))):
        console.print(f"[dim]note: {note}[/dim]", highlight=False)


def write_json(target: str, runs: Sequence[RunDetail], *, as_list: bool) -> None:
    """Write the summaries; one alone is an object."""
    summaries = [run.summary.model_dump(mode="json") for run in runs]
    text = json.dumps(summaries if as_list else summaries[0], indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def write_html(
    target: str,
    runs: Sequence[RunDetail],
    machine: EmulatedMachine,
    *,
    name: str,
    notes: Sequence[str],
) -> None:
    """Write the page about runs of the workload ``name``."""
    page = html_report(
        runs,
        workload_name=name,
        workload_notes=notes,
        assumptions=assumptions(machine.rack, machine.chip),
        command=shlex.join(["panjiu", *sys.argv[1:]]),
    )
    Path(target).write_text(page, encoding="utf-8")
