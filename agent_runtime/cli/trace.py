"""``panjiu trace``: what a workload is like, and which there are."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agent_runtime.cli.rack_options import natural_float, natural_int, positive_int
from agent_runtime.cli.run_outputs import check_outputs
from agent_runtime.report.trace_page import TraceDetail, trace_page
from agent_runtime.report.trace_table import trace_tables
from agent_runtime.workload.context_growth import context_growth
from agent_runtime.workload.sources import FORMATS, GENERATORS, load_workload
from agent_runtime.workload.trace_statistics import describe, following_turns

DESCRIPTION = """\
Describe a workload before it runs: sessions, turns, how contexts grow, the gaps between turns, and
what a prefix cache could find at best if it kept each session's KV for so long."""

EXAMPLES = """\
examples:
  panjiu trace list                                        what can be described and simulated
  panjiu trace describe coding-agents --limit 64
  panjiu trace describe traces.jsonl.gz --html trace.html  with plots
  panjiu trace describe traces/ --json -                   for machines
"""


def add_trace_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``trace`` with its two subcommands."""
    parser = commands.add_parser(
        "trace",
        help="what a workload is like, and which there are",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the generators and the forms of trace files")
    listing.set_defaults(run=run_trace_list)
    described = actions.add_parser(
        "describe",
        help="sessions, turns, gaps, and what caches could find",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    described.add_argument("source", metavar="SOURCE", help="a file, a folder, or a generator")
    described.add_argument("--limit", type=positive_int, metavar="N", help="at most N sessions")
    described.add_argument(
        "--seed", type=natural_int, default=0, metavar="N", help="of generators (default: 0)"
    )
    described.add_argument(
        "--max-gap-s", type=natural_float, metavar="S", help="cut longer gaps to S seconds"
    )
    described.add_argument("--json", metavar="OUT", help="write the numbers, - for stdout")
    described.add_argument("--html", metavar="OUT", help="write a self-contained page with plots")
    described.set_defaults(run=run_trace_describe)


def run_trace_list(_: argparse.Namespace) -> int:
    """Print the generators and the forms."""
    console = Console()
    for title, entries in (
        ("generators", {name: generator.about for name, generator in GENERATORS.items()}),
        ("trace files, known by their content", FORMATS),
    ):
        table = Table(
            title=title, box=None, title_justify="left", show_header=False, pad_edge=False
        )
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for name, about in entries.items():
            table.add_row(name, about)
        console.print(table)
        console.print()
    return 0


def run_trace_describe(args: argparse.Namespace) -> int:
    """Describe one source."""
    check_outputs(args)
    workload = load_workload(
        args.source, limit=args.limit, seed=args.seed, max_gap_s=args.max_gap_s
    )
    statistics = describe(workload)
    console = Console(stderr=args.json == "-")
    console.print(trace_tables(statistics, workload.figures))
    for note in workload.notes:
        console.print(f"[dim]note: {note}[/dim]", highlight=False)
    if args.json is not None:
        text = statistics.model_dump_json(indent=2) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            Path(args.json).write_text(text, encoding="utf-8")
    if args.html is not None:
        detail = TraceDetail(
            statistics=statistics,
            growth=context_growth(workload.sessions),
            gaps_s=following_turns(workload.sessions, workload.block_size_tokens).gap_s,
            figures=workload.figures,
            notes=workload.notes,
        )
        page = trace_page(detail, shlex.join(["panjiu", *sys.argv[1:]]))
        Path(args.html).write_text(page, encoding="utf-8")
        console.print(f"page: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)
    return 0
