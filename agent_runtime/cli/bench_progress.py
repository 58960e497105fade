"""Runs the cells of a comparison, keeps what is done, and shows how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from agent_runtime.comparison.cell import Bench, Cell
from agent_runtime.comparison.cell_store import CellStore
from agent_runtime.comparison.sweep import FailedCell, StartedCells, Step, sweep

_ETA_OVER_S = 3600.0
"""Runs may take minutes each; how fast they go is told from so long."""


def run_cells(
    bench: Bench, cells: Sequence[Cell], store: CellStore, num_jobs: int
) -> tuple[list[FailedCell], bool]:
    """Run the cells that the store lacks; return those that failed, and whether it was stopped."""
    missing = [cell for cell in cells if cell not in store.results]
    num_known = len(cells) - len(missing)
    console = Console(stderr=True)
    if num_known:
        console.print(f"{num_known} of {len(cells)} runs were done before and are reused")
    failed: list[FailedCell] = []
    try:
        with _bar(console) as progress:
            task = progress.add_task("starting", total=len(missing))
            num_jobs = min(num_jobs, max(1, len(missing)))
            with closing(sweep(bench, missing, num_jobs)) as steps:
                for step in steps:
                    _take(step, store, failed, progress, task)
    except KeyboardInterrupt:
        return failed, True
    return failed, False


def _take(
    step: Step, store: CellStore, failed: list[FailedCell], progress: Progress, task: TaskID
) -> None:
    if isinstance(step, StartedCells):
        oldest = step.cells[0]
        progress.update(task, description=f"{oldest.policy} at {oldest.load:g}")
        return
    if isinstance(step, FailedCell):
        failed.append(step)
    else:
        store.add(step)
    progress.advance(task)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        speed_estimate_period=_ETA_OVER_S,
    )
