"""Charts as SVG text: lines over time and cumulative distributions. Pure: values in, text out.

Colours and dashes come from CSS custom properties of the page (``--c`` and ``--dash``, set by the
class of a series), so that one drawing serves light mode, dark mode and paper. A value is read by
pointing at the chart, without JavaScript: invisible strips carry a ``<title>`` with every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.report import quantities
from agent_runtime.report.axis import Axis, log_time_axis, ratio_axis
from agent_runtime.report.curve import Curve, line_path, step_path
from agent_runtime.report.markup import escaped

FloatArray = NDArray[np.float64]

_LEFT, _RIGHT, _BOTTOM = 48.0, 26.0, 24.0
_LEGEND_ROW, _LEGEND_SWATCH, _CHAR = 17.0, 24.0, 6.1
_LONGEST_LABEL = 36
_STRIP_PX, _MAX_STRIPS = 9, 48
_TICK_PX = 50
_MARKED = ((0.5, "p50"), (0.99, "p99"))


@dataclass(frozen=True, slots=True)
class Frame:
    """Size of a chart in CSS pixels; a page may scale it."""

    width: float
    height: float

    @property
    def max_x_ticks(self) -> int:
        """Ticks whose labels fit side by side along x."""
        return max(2, int((self.width - _LEFT - _RIGHT) / _TICK_PX))

    @property
    def max_y_ticks(self) -> int:
        """Ticks that stand comfortably along y."""
        return max(2, int(self.height / 36))


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        label: What the legend says.
        x: [n], rising.
        y: [n].
        css_class: Class that sets ``--c`` and ``--dash``, and whatever else the page styles.
        filled: Whether the area down to zero is tinted.
    """

    label: str
    x: FloatArray
    y: FloatArray
    css_class: str
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """Values whose distribution a chart shows, in seconds.

    Attributes:
        label: What the legend says.
        values_s: [n], in any order.
        css_class: As in :class:`Series`.
    """

    label: str
    values_s: FloatArray
    css_class: str


@dataclass(frozen=True, slots=True)
class _Line:
    """A series ready to draw. A cumulative one is 0 before its first point and 1 after its last."""

    label: str
    curve: Curve
    css_class: str
    filled: bool
    cumulative: bool

    def value_at(self, x: float) -> float | None:
        index = int(np.searchsorted(self.curve.x, x, side="right")) - 1
        if self.curve.x.size == 0 or (not self.cumulative and not 0 <= x <= self.curve.x[-1]):
            return None
        return float(self.curve.y[max(index, 0)]) if index >= 0 or not self.cumulative else 0.0


def line_chart(series: Sequence[Series], x: Axis, y: Axis, *, frame: Frame, name: str) -> str:
    """Draw ``series`` against given axes, so that charts side by side can share them.

    More than ~400 samples are thinned to the lowest and highest of each of 200 stretches.

    Args:
        series: Drawn in order, the last on top.
        x: Horizontal axis.
        y: Vertical axis.
        frame: Size.
        name: What a screen reader says.
    """
    lines = [
        _Line(s.label, Curve.of(s.x, s.y), s.css_class, s.filled, cumulative=False) for s in series
    ]
    return _Canvas(frame, x, y, _legend_rows(lines, frame)).draw(lines, name)


def cdf_chart(samples: Sequence[Sample], *, frame: Frame, name: str) -> str:
    """Draw the share of each sample at or below a duration, on a log axis, p50 and p99 marked.

    More than 400 values are thinned to evenly spaced ranks; every point drawn is exact.
    """
    lines = [
        _Line(s.label, Curve.cumulative(s.values_s), s.css_class, filled=False, cumulative=True)
        for s in samples
    ]
    everything = np.concatenate([np.zeros(0), *(line.curve.x for line in lines)])
    x = log_time_axis(everything, frame.max_x_ticks)
    return _Canvas(frame, x, ratio_axis(), _legend_rows(lines, frame)).draw(lines, name)


class _Canvas:
    """Where data values lie in the picture, and how each kind of mark is drawn there."""

    def __init__(
        self, frame: Frame, x: Axis, y: Axis, legend: list[list[tuple[float, _Line]]]
    ) -> None:
        self._frame, self._x, self._y, self._legend = frame, x, y, legend
        self._top = 8 + _LEGEND_ROW * len(legend)
        self._plot_width = frame.width - _LEFT - _RIGHT
        self._plot_height = frame.height - self._top - _BOTTOM
        self._floor = self._top + self._plot_height

    def draw(self, lines: Sequence[_Line], name: str) -> str:
        drawn = [line for line in lines if line.curve.x.size]
        parts = [self._grid(), self._draw_legend()]
        parts += [self._draw_line(line) for line in drawn]
        parts += [self._marks(line) for line in drawn if line.cumulative]
        parts += [self._strips(drawn)] if drawn else [self._nothing()]
        return (
            f'<svg class="chart" viewBox="0 0 {self._frame.width:g} {self._frame.height:g}" '
            f'role="img" aria-label="{escaped(name)}" xmlns="http://www.w3.org/2000/svg">'
            f"{''.join(parts)}</svg>"
        )

    def _x_px(self, values: FloatArray) -> FloatArray:
        return _LEFT + self._x.fraction(values) * self._plot_width

    def _y_px(self, values: FloatArray) -> FloatArray:
        return self._floor - self._y.fraction(values) * self._plot_height

    def _grid(self) -> str:
        right = _LEFT + self._plot_width
        parts = []
        for tick, y in zip(self._y.ticks, self._y_px(np.array(self._y.ticks)), strict=True):
            css = "axis" if tick == self._y.low else "grid"
            parts.append(f'<path class="{css}" d="M{_LEFT:g} {y:.1f}H{right:g}"/>')
            label = escaped(self._y.render(tick))
            parts.append(f'<text class="y" x="{_LEFT - 7:g}" y="{y + 3.5:.1f}">{label}</text>')
        for tick, x in zip(self._x.ticks, self._x_px(np.array(self._x.ticks)), strict=True):
            label = escaped(self._x.render(tick))
            parts.append(f'<path class="axis" d="M{x:.1f} {self._floor:g}v4"/>')
            parts.append(f'<text class="x" x="{x:.1f}" y="{self._floor + 17:g}">{label}</text>')
        return "".join(parts)

    def _draw_legend(self) -> str:
        parts = []
        for row, entries in enumerate(self._legend):
            y = 10 + row * _LEGEND_ROW
            for x, line in entries:
                shape = "h18" if not line.filled else "m0 -4h18v8h-18z"
                css = "line" if not line.filled else "line area"
                parts.append(
                    f'<path class="{css} {line.css_class}" d="M{x:g} {y:g}{shape}"/>'
                    f'<text x="{x + _LEGEND_SWATCH:g}" y="{y + 3.5:g}">{_short(line.label)}</text>'
                )
        return "".join(parts)

    def _draw_line(self, line: _Line) -> str:
        if line.cumulative:
            thin = line.curve.thinned_by_rank()
            path = step_path(self._x_px(thin.x), self._y_px(thin.y), self._floor)
            return f'<path class="line {line.css_class}" d="{path}"/>'
        thin = line.curve.thinned_by_extremes()
        x, y = self._x_px(thin.x), self._y_px(thin.y)
        path = line_path(x, y)
        stroke = f'<path class="line {line.css_class}" d="{path}"/>'
        if not line.filled:
            return stroke
        closed = f"{path}V{self._floor:g}H{x[0]:.1f}z"
        return f'<path class="area {line.css_class}" d="{closed}"/>{stroke}'

    def _marks(self, line: _Line) -> str:
        values = np.quantile(line.curve.x, [share for share, _ in _MARKED])
        marks = zip(_MARKED, values.tolist(), self._x_px(values), strict=True)
        parts = []
        for (share, label), value, x in marks:
            y = self._y_px(np.array([share]))[0]
            said = f"{label} {quantities.seconds(value)}"
            parts.append(
                f'<circle class="mark {line.css_class}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{escaped(f'{line.label}: {said}')}</title></circle>"
            )
        return "".join(parts)

    def _strips(self, lines: Sequence[_Line]) -> str:
        num_strips = min(_MAX_STRIPS, max(1, int(self._plot_width / _STRIP_PX)))
        width = self._plot_width / num_strips
        parts = []
        for index in range(num_strips):
            x_value = self._x.value_at((index + 0.5) / num_strips)
            said = [quantities.seconds(x_value)]
            for line in lines:
                y_value = line.value_at(x_value)
                said.append(f"{line.label}: {_said(self._y, y_value)}")
            parts.append(
                f'<rect class="strip" x="{_LEFT + index * width:.1f}" y="{self._top:g}" '
                f'width="{width:.1f}" height="{self._plot_height:g}">'
                f"<title>{escaped(chr(10).join(said))}</title></rect>"
            )
        return "".join(parts)

    def _nothing(self) -> str:
        x, y = _LEFT + self._plot_width / 2, self._top + self._plot_height / 2
        return f'<text class="x" x="{x:g}" y="{y:g}">nothing was measured</text>'


def _legend_rows(lines: Sequence[_Line], frame: Frame) -> list[list[tuple[float, _Line]]]:
    """Lay the legend out left to right, wrapped: each entry's x and its line."""
    rows: list[list[tuple[float, _Line]]] = [[]]
    x = _LEFT
    for line in lines:
        width = _LEGEND_SWATCH + _CHAR * min(len(line.label), _LONGEST_LABEL) + 14
        if rows[-1] and x + width > frame.width:
            rows.append([])
            x = _LEFT
        rows[-1].append((x, line))
        x += width
    return rows


def _short(label: str) -> str:
    cut = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 3]}..."
    return escaped(cut)


def _said(axis: Axis, value: float | None) -> str:
    if value is None:
        return "ended"
    return quantities.count(value) if axis.render is quantities.count else quantities.ratio(value)
