"""A comparison in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from agent_runtime.comparison.cell import CellResult
from agent_runtime.comparison.statistics import Estimate, verdict
from agent_runtime.report.bench_measures import TABLE, best, rows

JUDGED = (("jct_mean_s", "mean JCT"), ("slowdown_p99", "p99 slowdown"))


def bench_table(results: Sequence[CellResult], load: float) -> Table:
    """Return the table of one load; the best of each column is bold, bounds (†) are dim."""
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
    found = rows(results, load, TABLE)
    bests = [best(found, index, column.sign) for index, column in enumerate(TABLE)]
    for row in found:
        name = f"{row.policy} †" if row.is_bound else row.policy
        cells = [
            Text(column.write(value.mean), style="bold" if value.mean == least else "")
            for column, value, least in zip(TABLE, row.estimates, bests, strict=True)
        ]
        table.add_row(name, *cells, style="dim" if row.is_bound else "")
    return table


def verdict_lines(results: Sequence[CellResult], policy: str, load: float) -> Iterator[str]:
    """Yield how a policy stands against the best of its rivals."""
    for measure, name in JUDGED:
        found = verdict(results, policy, load, measure)
        if found is not None:
            yield (
                f"load {load:g}: {policy}'s {name} is {said(found.ratio)} of the best rival's "
                f"({found.rival})"
            )


def said(ratio: Estimate) -> str:
    """Write a ratio with its interval, if it has one."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.mean:.2f}x"
    return f"{ratio.mean:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
