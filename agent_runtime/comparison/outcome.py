"""What a comparison gave, as far as it got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.comparison.cell import Bench, Cell, CellResult
from agent_runtime.comparison.sweep import FailedCell


@dataclass(frozen=True, slots=True)
class Outcome:
    """A comparison that is over, or was stopped.

    Attributes:
        bench: What was compared on.
        cells: All that were asked for.
        results: Of those that are done, in the same order.
        failed: Those that raised.
        baseline: The policy whose standing is told.
    """

    bench: Bench
    cells: Sequence[Cell]
    results: Sequence[CellResult]
    failed: Sequence[FailedCell]
    baseline: str

    @property
    def loads(self) -> list[float]:
        """Loads with results, rising."""
        return sorted({result.load for result in self.results})

    @property
    def policies(self) -> list[str]:
        """Policies that were asked for, by name."""
        return sorted({cell.policy for cell in self.cells})

    @property
    def num_missing(self) -> int:
        """Cells without a result."""
        return len(self.cells) - len(self.results)
