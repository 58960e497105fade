"""All cells of a comparison, over all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from agent_runtime.comparison.cell import Bench, Cell, CellResult, run_cell


@dataclass(frozen=True, slots=True)
class FailedCell:
    """A run that raised."""

    cell: Cell
    error: str


class _Worker:
    """What a worker process keeps between cells."""

    bench: Bench | None = None

    @classmethod
    def begin(cls, bench: Bench) -> None:
        """Called once in each worker."""
        cls.bench = bench

    @classmethod
    def run(cls, cell: Cell) -> CellResult:
        """Run a cell in a worker."""
        if cls.bench is None:
            raise RuntimeError("the worker was not begun")
        return run_cell(cls.bench, cell)


def sweep(bench: Bench, cells: Sequence[Cell], num_jobs: int) -> Iterator[CellResult | FailedCell]:
    """Run cells and yield what each gave, as they finish.

    Leaving the iterator early, or Ctrl-C, stops the workers.
    """
    if num_jobs == 1:
        for cell in cells:
            yield _alone(bench, cell)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_jobs, context, initializer=_Worker.begin, initargs=(bench,))
    try:
        todo = iter(cells)
        running: dict[Future[CellResult], Cell] = {}
        while True:
            # Two a worker: nobody waits for work, and little is thrown away when it is stopped.
            for following in islice(todo, 2 * num_jobs - len(running)):
                running[pool.submit(_Worker.run, following)] = following
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                cell = running.pop(future)
                error = future.exception()
                yield future.result() if error is None else FailedCell(cell, _say(error))
    finally:
        for process in list((pool._processes or {}).values()):  # noqa: SLF001 - no public way to stop them at once
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(bench: Bench, cell: Cell) -> CellResult | FailedCell:
    try:
        return run_cell(bench, cell)
    except Exception as error:  # noqa: BLE001 - one policy's bug must not cost the others' results
        return FailedCell(cell, _say(error))


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
