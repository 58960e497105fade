"""All cells of a comparison, over all cores."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from agent_runtime.comparison.cell import Bench, Cell, CellResult, run_cell
from agent_runtime.comparison.packing import packed, unpacked


@dataclass(frozen=True, slots=True)
class FailedCell:
    """A run that raised, or whose process died."""

    cell: Cell
    error: str


@dataclass(frozen=True, slots=True)
class StartedCells:
    """What runs now, in the order in which it began."""

    cells: tuple[Cell, ...]


Step = StartedCells | CellResult | FailedCell


class _Worker:
    """What a worker process keeps between cells."""

    bench: Bench | None = None

    @classmethod
    def begin(cls, packed_bench: bytes) -> None:
        """Called once in each worker."""
        # A terminal sends Ctrl-C to all; whoever started the workers ends them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        cls.bench = unpacked(packed_bench)

    @classmethod
    def run(cls, cell: Cell) -> CellResult:
        """Run a cell in a worker."""
        if cls.bench is None:
            raise RuntimeError("the worker was not begun")
        return run_cell(cls.bench, cell)


def sweep(bench: Bench, cells: Sequence[Cell], num_jobs: int) -> Generator[Step, None, None]:
    """Run cells and yield what runs and what each gave, as they begin and finish.

    Closing the iterator, or Ctrl-C, stops the workers. When a worker dies, nobody knows whose fault
    it was: the cells that were under way run again, each alone, and the one that kills its worker
    again has failed.
    """
    if num_jobs == 1:
        for cell in cells:
            yield StartedCells((cell,))
            yield _alone(bench, cell)
        return
    todo, suspects = deque(cells), deque[Cell]()
    while todo or suspects:
        alone = bool(suspects)
        pool = _Pool(bench, 1 if alone else num_jobs)
        try:
            yield from pool.run(deque([suspects.popleft()]) if alone else todo)
        finally:
            pool.stop()
        if alone:
            for cell in pool.broken:
                yield FailedCell(cell, "its process died, perhaps for want of memory; --jobs 1?")
        else:
            suspects.extend(pool.broken)


class _Pool:
    """Worker processes that have the bench.

    Attributes:
        broken: Cells that were under way when a worker died.
    """

    def __init__(self, bench: Bench, num_jobs: int) -> None:
        self.broken: list[Cell] = []
        self._num_jobs = num_jobs
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(
            num_jobs, context, initializer=_Worker.begin, initargs=(packed(bench),)
        )

    def run(self, todo: deque[Cell]) -> Generator[Step, None, None]:
        """Run cells from the front of ``todo``, until none is left or a worker dies."""
        running: dict[Future[CellResult], Cell] = {}
        while (todo or running) and not self.broken:
            self._fill(running, todo)
            yield StartedCells(tuple(running.values()))
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            sound = [future for future in done if not _is_broken(future)]
            yield from [_outcome(future, running.pop(future)) for future in sound]
            if len(sound) < len(done):
                self.broken = list(running.values())

    def _fill(self, running: dict[Future[CellResult], Cell], todo: deque[Cell]) -> None:
        """Give every worker a cell; none more, so that what runs is what is said to run."""
        while todo and len(running) < self._num_jobs:
            try:
                future = self._executor.submit(_Worker.run, todo[0])
            except BrokenProcessPool:
                return  # those that run will say so
            running[future] = todo.popleft()

    def stop(self) -> None:
        """End the workers at once, whatever they do."""
        processes = self._executor._processes or {}  # noqa: SLF001 - no public way at once
        for process in list(processes.values()):
            process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)


def _outcome(future: Future[CellResult], cell: Cell) -> CellResult | FailedCell:
    error = future.exception()
    return future.result() if error is None else FailedCell(cell, _say(error))


def _is_broken(future: Future[CellResult]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


def _alone(bench: Bench, cell: Cell) -> CellResult | FailedCell:
    try:
        return run_cell(bench, cell)
    except Exception as error:  # noqa: BLE001 - one policy's bug must not cost the others' results
        return FailedCell(cell, _say(error))


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
