"""The table that the terminal shows after a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from agent_runtime.measurement.summary import RunDetail
from agent_runtime.report.measures import MEASURES
from agent_runtime.report.run_labels import base_index, label_runs, shared_traits


def summary_table(runs: Sequence[RunDetail]) -> Table:
    """Return one column a run and one row a measure; five runs fit in 80 columns.

    Raises:
        ValueError: There are no runs.
    """
    if not runs:
        raise ValueError("a table needs at least one run")
    table = Table(
        title=Text(shared_traits(runs), style="bold"),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
    )
    table.add_column("", style="dim", no_wrap=True)
    base = base_index(runs)
    for index, label in enumerate(label_runs(runs)):
        style = "bold" if index == base and len(runs) > 1 else ""
        table.add_column(
            Text(label.name), justify="right", style=style, min_width=9, overflow="fold"
        )
    for group in MEASURES:
        for measure in group:
            table.add_row(measure.name, *(Text(measure.read(run.summary)) for run in runs))
        table.add_section()
    return table
