"""What the terminal shows after a load test."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_runtime.load_test.summary import LoadSummary
from agent_runtime.report.load_words import COLUMNS, LATENCIES, counts, facts, title


def print_load(console: Console, summary: LoadSummary) -> None:
    """Print latencies, counts, errors, warnings and how it was measured."""
    console.print(title(summary), style="bold", highlight=False, markup=False, soft_wrap=True)
    console.print(_latencies(summary))
    console.print(_counts(summary))
    for error in summary.errors:
        _line(console, f"{error.count:,} x {error.kind}, first: {error.example}", "red")
    for text in summary.warnings:
        _line(console, f"warning: {text}", "yellow")
    for text in (*facts(summary), *(f"note: {note}" for note in summary.notes)):
        _line(console, text, "dim")


def _line(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, highlight=False, markup=False)


def _latencies(summary: LoadSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="dim", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for latency in LATENCIES:
        table.add_row(latency.name, *latency.cells(summary))
    return table


def _counts(summary: LoadSummary) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in counts(summary):
        table.add_row(Text(name), Text(value))
    return table
