"""How far each run lies from the base run, drawn small enough to stand in a table row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.measurement.summary import RunDetail
from agent_runtime.report.markup import escaped
from agent_runtime.report.measures import Measure
from agent_runtime.report.run_labels import RunLabel

_LEAST_DOUBLINGS, _MOST_DOUBLINGS = 1, 4
_PERCENT = 100


@dataclass(frozen=True, slots=True)
class BandPlot:
    """Draws ratios to the base run on a log scale that all rows share.

    Attributes:
        runs: All runs of the report.
        labels: Theirs.
        base: Index of the run at 1x.
        doublings: The scale reaches from ``2 ** -doublings`` to ``2 ** doublings``; ratios beyond
            are pinned to its ends.
    """

    runs: Sequence[RunDetail]
    labels: Sequence[RunLabel]
    base: int
    doublings: int

    @classmethod
    def of(
        cls,
        runs: Sequence[RunDetail],
        labels: Sequence[RunLabel],
        base: int,
        measures: Sequence[Measure],
    ) -> BandPlot:
        """Choose the scale that holds every one of ``measures``, within 16x either way."""
        plot = cls(runs, labels, base, _LEAST_DOUBLINGS)
        ratios = [ratio for measure in measures for _, ratio in plot._ratios(measure)]
        farthest = max((abs(math.log2(ratio)) for ratio in ratios), default=0.0)
        doublings = min(_MOST_DOUBLINGS, max(_LEAST_DOUBLINGS, math.ceil(farthest - 0.05)))
        return cls(runs, labels, base, doublings)

    def scale(self) -> str:
        """Return the header cell's drawing: what the positions mean."""
        marks = "".join(
            f'<text x="{self._x(2.0**power):g}%" y="12" text-anchor="middle">{_times(power)}</text>'
            for power in range(-self.doublings, self.doublings + 1)
        )
        return f'<svg role="img" aria-label="Ratio to {escaped(self._base_name)}">{marks}</svg>'

    def row(self, measure: Measure) -> str:
        """Return one measure's drawing, or nothing when it can't be compared."""
        ratios = self._ratios(measure)
        if len(ratios) < 2:  # noqa: PLR2004 - a run beside the base
            return ""
        rules = "".join(
            f'<line class="rule" x1="{x:g}%" x2="{x:g}%" y1="-8" y2="26"/>'
            for x in (self._x(2.0**power) for power in range(-self.doublings, self.doublings + 1))
        )
        places = [self._x(ratio) for _, ratio in ratios]
        dots = "".join(
            f'<circle class="{label.css_class}" cx="{x:.1f}%" cy="9" r="4.5">'
            f"<title>{escaped(f'{label.name}: {_said(ratio)}')}</title></circle>"
            for (label, ratio), x in zip(ratios, places, strict=True)
        )
        said = ", ".join(f"{label.name} {_said(ratio)}" for label, ratio in ratios)
        return (
            f'<svg role="img" aria-label="{escaped(said)}">{rules}<line class="span" '
            f'x1="{min(places):.1f}%" x2="{max(places):.1f}%" y1="9" y2="9"/>{dots}</svg>'
        )

    @property
    def _base_name(self) -> str:
        return self.labels[self.base].name

    def _ratios(self, measure: Measure) -> list[tuple[RunLabel, float]]:
        """Return each run's ratio to the base, the base's own last so that it is drawn on top."""
        if measure.value is None:
            return []
        values = [measure.value(run.summary) for run in self.runs]
        base = values[self.base]
        if base is None or not _is_positive(base):
            return []
        ratios = [
            (index == self.base, label, value / base)
            for index, (label, value) in enumerate(zip(self.labels, values, strict=True))
            if value is not None and _is_positive(value)
        ]
        ratios.sort(key=lambda ratio: ratio[0])
        return [(label, ratio) for _, label, ratio in ratios if _is_positive(ratio)]

    def _x(self, ratio: float) -> float:
        pinned = min(self.doublings, max(-self.doublings, math.log2(ratio)))
        return _PERCENT * (0.5 + pinned / self.doublings / 2)


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _times(power: int) -> str:
    return f"{2**power}x" if power >= 0 else f"1/{2**-power}x"


def _said(ratio: float) -> str:
    return f"{ratio:.2f}x the base"
