"""What ``bench`` leaves: tables, who is best, JSON, CSV, a page."""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agent_runtime.comparison.cell import CellResult
from agent_runtime.comparison.outcome import Outcome
from agent_runtime.errors import ConfigError
from agent_runtime.measurement.summary import Assumption
from agent_runtime.report.bench_json import bench_json
from agent_runtime.report.bench_page import BenchPage, bench_page
from agent_runtime.report.bench_table import bench_table
from agent_runtime.report.bench_words import cautions, facts, verdict_lines

TARGETS = ("json", "csv", "html")


def check_bench_outputs(args: argparse.Namespace) -> None:
    """Fail before the work and not after it.

    Raises:
        ConfigError: A target that can't be a file.
    """
    for name in TARGETS:
        target = getattr(args, name)
        if target is None or (target == "-" and name == "json"):
            continue
        path = Path(target)
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError(f"--{name} {target}: not a file in an existing directory")


def leave_results(
    outcome: Outcome, args: argparse.Namespace, assumptions: Sequence[Assumption]
) -> None:
    """Print what there is and write what was asked for."""
    console = Console(stderr=args.json == "-")
    _print_tables(outcome, console)
    if args.json is not None:
        _write_json(args.json, outcome)
    if args.csv is not None:
        _write_csv(Path(args.csv), outcome.results)
    if args.html is not None:
        page = BenchPage(outcome, assumptions, shlex.join(["panjiu", *sys.argv[1:]]))
        Path(args.html).write_text(bench_page(page), encoding="utf-8")
        console.print(f"page: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)
    for failure in outcome.failed:
        cell = failure.cell
        Console(stderr=True).print(
            f"failed: {cell.policy} at load {cell.load:g}, seed {cell.seed}: {failure.error}",
            highlight=False,
            markup=False,
        )


def _print_tables(outcome: Outcome, console: Console) -> None:
    for load in outcome.loads:
        console.print(bench_table(outcome, load))
        for line in verdict_lines(outcome, load):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print()
    for line in (*facts(outcome.bench), *(f"note: {text}" for text in cautions(outcome))):
        console.print(line, style="dim", highlight=False, markup=False)


def _write_json(target: str, outcome: Outcome) -> None:
    text = bench_json(outcome).model_dump_json(indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def _write_csv(target: Path, results: Sequence[CellResult]) -> None:
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(CellResult.model_fields))
        writer.writeheader()
        writer.writerows(result.model_dump() for result in results)
