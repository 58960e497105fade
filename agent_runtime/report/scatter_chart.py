"""A scatter of choices and, of each kind, the front that nothing beats; SVG text, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.report.axis import Axis
from agent_runtime.report.markup import escaped
from agent_runtime.report.svg_chart import Frame

FloatArray = NDArray[np.float64]

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 28.0, 12.0, 42.0
_DOT, _FRONT_DOT = 2.0, 4.0
_CHAR, _LINE, _MOST_LINES = 6.1, 12.0, 12


@dataclass(frozen=True, slots=True)
class Dot:
    """One choice.

    Attributes:
        x, y: Where, in data units.
        said: What a reader sees who points at it.
        on_front: Whether no other of its kind beats it; those are joined by a line.
        label: What stands beside it, if it is on the front.
    """

    x: float
    y: float
    said: str
    on_front: bool
    label: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """Choices of one kind.

    Attributes:
        css_class: Class that sets ``--c`` and ``--dash``.
    """

    css_class: str
    dots: Sequence[Dot]


@dataclass(frozen=True, slots=True)
class ScatterAxes:
    """The axes and what they are called.

    Attributes:
        limit_y: A level to mark, or None.
    """

    x: Axis
    x_title: str
    y: Axis
    limit_y: float | None = None


def scatter_chart(kinds: Sequence[Kind], axes: ScatterAxes, *, frame: Frame, name: str) -> str:
    """Draw ``kinds`` in order, fronts on top.

    Args:
        kinds: Each with its dots.
        axes: Shared by all.
        frame: Size.
        name: What a screen reader says.
    """
    plot = _Plot(axes, frame)
    faint = "".join(plot.dot(dot, kind) for kind in kinds for dot in kind.dots if not dot.on_front)
    fronts = "".join(plot.front(kind) for kind in kinds)
    return (
        f'<svg class="chart" viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" '
        f'aria-label="{escaped(name)}" xmlns="http://www.w3.org/2000/svg">'
        f"{plot.grid()}{faint}{fronts}{plot.labels(kinds)}</svg>"
    )


class _Plot:
    """Where data values lie in the picture."""

    def __init__(self, axes: ScatterAxes, frame: Frame) -> None:
        self._axes = axes
        self._width = frame.width - _LEFT - _RIGHT
        self._height = frame.height - _TOP - _BOTTOM
        self._floor = _TOP + self._height

    def grid(self) -> str:
        axes, right, parts = self._axes, _LEFT + self._width, []
        for tick in axes.y.ticks:
            y, css = self._y(tick), "axis" if tick == axes.y.low else "grid"
            parts.append(
                f'<path class="{css}" d="M{_LEFT:g} {y:.1f}H{right:g}"/>'
                f'<text class="y" x="{_LEFT - 7:g}" y="{y + 3.5:.1f}">'
                f"{escaped(axes.y.render(tick))}</text>"
            )
        for tick in axes.x.ticks:
            x = self._x(tick)
            parts.append(
                f'<path class="axis" d="M{x:.1f} {self._floor:g}v4"/>'
                f'<text class="x" x="{x:.1f}" y="{self._floor + 17:g}">'
                f"{escaped(axes.x.render(tick))}</text>"
            )
        middle, bottom = _LEFT + self._width / 2, self._floor + 35
        parts.append(
            f'<text class="x" x="{middle:g}" y="{bottom:g}">{escaped(axes.x_title)}</text>'
        )
        if axes.limit_y is not None and axes.y.low <= axes.limit_y <= axes.y.high:
            y = self._y(axes.limit_y)
            parts.append(
                f'<path class="axis" stroke-dasharray="5 4" d="M{_LEFT:g} {y:.1f}H{right:g}"/>'
                f'<text x="{_LEFT + 6:g}" y="{y - 5:.1f}">asked</text>'
            )
        return "".join(parts)

    def dot(self, dot: Dot, kind: Kind) -> str:
        return (
            f'<circle class="{kind.css_class}" cx="{self._x(dot.x):.1f}" cy="{self._y(dot.y):.1f}" '
            f'r="{_DOT:g}" fill="var(--c)" fill-opacity="0.35"/>'
        )

    def front(self, kind: Kind) -> str:
        dots = sorted((dot for dot in kind.dots if dot.on_front), key=lambda dot: dot.x)
        if not dots:
            return ""
        points = [(self._x(dot.x), self._y(dot.y)) for dot in dots]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        marks = "".join(
            f'<circle class="mark {kind.css_class}" cx="{x:.1f}" cy="{y:.1f}" r="{_FRONT_DOT:g}">'
            f"<title>{escaped(dot.said)}</title></circle>"
            for dot, (x, y) in zip(dots, points, strict=True)
        )
        return f'<path class="line {kind.css_class}" d="M{path}"/>{marks}'

    def labels(self, kinds: Sequence[Kind]) -> str:
        """Write labels beside their dots; one that would overlap goes up or down a few lines."""
        named = [(dot, kind) for kind in kinds for dot in kind.dots if dot.on_front and dot.label]
        written: list[tuple[float, float, float]] = []  # left, right, y
        parts = []
        for dot, kind in sorted(named, key=lambda pair: (-pair[0].y, pair[0].x)):
            width, x, at_y = _CHAR * len(dot.label), self._x(dot.x) + 9, self._y(dot.y) + 4
            if x + width > _LEFT + self._width + _RIGHT:
                x -= width + 18
            lines = sorted(range(-_MOST_LINES, _MOST_LINES + 1), key=abs)
            free = [
                at_y + _LINE * line
                for line in lines
                if _TOP + _LINE <= at_y + _LINE * line < self._floor
                and not any(
                    x < right and left < x + width and abs(at_y + _LINE * line - y) < _LINE
                    for left, right, y in written
                )
            ]
            y = free[0] if free else at_y
            written.append((x, x + width, y))
            parts.append(
                f'<text class="{kind.css_class}" fill="var(--c)" x="{x:.1f}" y="{y:.1f}">'
                f"{escaped(dot.label)}</text>"
            )
        return "".join(parts)

    def _x(self, value: float) -> float:
        return _LEFT + float(self._axes.x.fraction(np.array([value]))[0]) * self._width

    def _y(self, value: float) -> float:
        return self._floor - float(self._axes.y.fraction(np.array([value]))[0]) * self._height
