"""``panjiu loadtest compare``: two runs beside each other."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_runtime.cli.loadtest_outputs import check_load_outputs
from agent_runtime.errors import ConfigError
from agent_runtime.load_test.comparison import RunRatio, compare, differences
from agent_runtime.load_test.summary import FORMAT, LoadSummary
from agent_runtime.report.load_comparison_page import load_comparison_page, ratio_words
from agent_runtime.report.load_words import title

DESCRIPTION = """\
Show two load tests beside each other, B over A, with 95 % intervals over sessions. A time's ratio
below 1 says that B is faster, a rate's above 1 that it does more."""

EXAMPLES = """\
examples:
  panjiu loadtest compare router-a.json router-b.json --html routers.html
"""


def add_compare_command(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action."""
    parser = actions.add_parser(
        "compare",
        help="two runs beside each other",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="what loadtest --json wrote")
    parser.add_argument("b", metavar="B", help="what it wrote of another run")
    parser.add_argument("--json", metavar="OUT", help="write the ratios, - for stdout")
    parser.add_argument("--html", metavar="OUT", help="write a self-contained page with charts")
    parser.set_defaults(run=run_compare)


def run_compare(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    args.csv = None
    check_load_outputs(args)
    a, b = _read(args.a), _read(args.b)
    ratios, differing = compare(a, b), differences(a, b)
    console = Console(stderr=args.json == "-")
    for name, run in (("A", a), ("B", b)):
        console.print(f"{name}: {title(run)}", highlight=False, markup=False, soft_wrap=True)
        for text in run.warnings:
            console.print(f"   warning: {text}", style="yellow", highlight=False, markup=False)
    for text in differing:
        console.print(f"warning: not the same: {text}", style="yellow", highlight=False)
    console.print(_table(ratios))
    if args.json is not None:
        told = {"differences": differing, "ratios": [asdict(one) for one in ratios]}
        text = json.dumps(told, indent=2) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            Path(args.json).write_text(text, encoding="utf-8")
    if args.html is not None:
        command = shlex.join(["panjiu", *sys.argv[1:]])
        page = load_comparison_page(a, b, ratios, differing, command)
        Path(args.html).write_text(page, encoding="utf-8")
        console.print(f"page: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)
    return 0


def _read(path: str) -> LoadSummary:
    """Read a run.

    Raises:
        ConfigError: The file is none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        summary = LoadSummary.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't read it: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path}: not what 'panjiu loadtest --json' writes: {place}: {first['msg']}"
        ) from error
    if summary.format != FORMAT:
        raise ConfigError(f"{path}: its format is {summary.format!r}; this version reads {FORMAT}")
    return summary


def _table(ratios: list[RunRatio]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="dim", no_wrap=True)
    for name in ("A", "B", "B / A"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in ratios:
        table.add_row(one.name, *(Text(cell) for cell in ratio_words(one)))
    return table
