"""A comparison in the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from agent_runtime.comparison.outcome import Outcome
from agent_runtime.report.bench_measures import TABLE, best, rows, written


def bench_table(outcome: Outcome, load: float) -> Table:
    """Return the table of one load; the best of each column is bold, bounds are dim."""
    table = Table(
        title=Text(f"load {load:g}", style="bold"),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        title_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    for column in TABLE:
        table.add_column(column.title, justify="right", no_wrap=True)
    found = rows(outcome, load, TABLE)
    bests = [best(found, index, column.sign) for index, column in enumerate(TABLE)]
    for row in found:
        name = f"{row.policy} (bound)" if row.is_bound else row.policy
        cells = []
        for column, value, least in zip(TABLE, row.estimates, bests, strict=True):
            is_best = value is not None and value.mean == least and not row.is_bound
            cells.append(Text(written(column, value), style="bold" if is_best else ""))
        table.add_row(name, *cells, style="dim" if row.is_bound else "")
    return table
