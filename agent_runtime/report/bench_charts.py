"""The charts of a comparison: measures by load, and means against tails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent_runtime.comparison.outcome import Outcome
from agent_runtime.comparison.statistics import Estimate, estimate
from agent_runtime.report.axis import Axis, log_factor_axis, log_time_axis, marked_axis
from agent_runtime.report.bench_measures import ALL, JCT, Column, rows, spread, written
from agent_runtime.report.markup import escaped
from agent_runtime.report.scatter_chart import Dot, Kind, ScatterAxes, scatter_chart
from agent_runtime.report.svg_chart import FloatArray, Frame

SLOWDOWN = "slowdown_p99"

_FRAME = Frame(520, 340)
_CLASSES = ("c-base", "c-low", "c-high", "c-four", "c-five", "c-six")
_REST = "c-rest"
_LEAST_LOADS = 2

MakeAxis = Callable[[FloatArray, int], Axis]


def load_charts(outcome: Outcome) -> str:
    """Draw mean JCT and p99 slowdown by load, a line a policy; nothing for a single load."""
    if len(outcome.loads) < _LEAST_LOADS:
        return ""
    jct = _by_load(outcome, JCT, log_time_axis)
    slowdown = _by_load(outcome, SLOWDOWN, log_factor_axis)
    return _figures(
        _figure("Mean JCT", "by load", jct),
        _figure("p99 slowdown", "by load; times as long in model calls as alone", slowdown),
    )


def trade_charts(outcome: Outcome) -> str:
    """Draw mean JCT against p99 slowdown, a chart a load; the lower left is best."""
    return _figures(
        *(
            _figure(f"Load {load:g}", "mean JCT (across) and p99 slowdown (up)", chart)
            for load in outcome.loads
            if (chart := _trade(outcome, load))
        )
    )


def legend(outcome: Outcome) -> str:
    """Return which colour is whose, for all charts."""
    swatches = "".join(
        f'<span class="key"><i class="swatch {css}"></i>{escaped(name)}</span> '
        for name, css in _highlighted(outcome).items()
    )
    rest = set(outcome.policies) - set(_highlighted(outcome))
    grey = f'<span class="key"><i class="swatch {_REST}"></i>the others</span>' if rest else ""
    return f"{swatches}{grey}<br>Point at a dot to read it."


def _highlighted(outcome: Outcome) -> dict[str, str]:
    """Return the policies that have a colour: baseline, best rivals at the highest load, bounds."""
    if not outcome.loads:
        return {}
    found = rows(outcome, outcome.loads[-1], ())
    bounds = [row.policy for row in found if row.is_bound and row.policy != outcome.baseline]
    rivals = [row.policy for row in found if not row.is_bound and row.policy != outcome.baseline]
    baseline = [row.policy for row in found if row.policy == outcome.baseline]
    num_rivals = len(_CLASSES) - len(baseline) - min(len(bounds), 1)
    chosen = [*baseline, *rivals[:num_rivals], *bounds[:1]]
    return dict(zip(chosen, _CLASSES, strict=False))


def _by_load(outcome: Outcome, field: str, make_axis: MakeAxis) -> str:
    column = _column(field)
    colours = _highlighted(outcome)
    kinds, values = [], []
    for policy in _drawing_order(outcome, colours):
        dots = []
        for load in outcome.loads:
            found = estimate(outcome.results, policy, load, field)
            if found is not None:
                said = f"{policy} at load {load:g}: {_said(column, found)}"
                dots.append(Dot(load, found.mean, said, on_front=True))
        kinds.append(Kind(colours.get(policy, _REST), dots))
        values += [dot.y for dot in dots]
    axes = ScatterAxes(
        marked_axis(outcome.loads), "load", make_axis(np.array(values), _FRAME.max_y_ticks)
    )
    return scatter_chart(kinds, axes, frame=_FRAME, name=f"{column.title} by load")


def _trade(outcome: Outcome, load: float) -> str:
    colours = _highlighted(outcome)
    kinds = []
    for policy in _drawing_order(outcome, colours):
        jct = estimate(outcome.results, policy, load, JCT)
        slowdown = estimate(outcome.results, policy, load, SLOWDOWN)
        if jct is None or slowdown is None:
            continue
        said = (
            f"{policy}: mean JCT {_said(_column(JCT), jct)}, "
            f"p99 slowdown {_said(_column(SLOWDOWN), slowdown)}"
        )
        label = policy if policy in colours else ""
        dot = Dot(jct.mean, slowdown.mean, said, on_front=True, label=label)
        kinds.append(Kind(colours.get(policy, _REST), [dot]))
    if not kinds:
        return ""
    dots = [kind.dots[0] for kind in kinds]
    axes = ScatterAxes(
        log_time_axis(np.array([dot.x for dot in dots]), _FRAME.max_x_ticks),
        "mean JCT",
        log_factor_axis(np.array([dot.y for dot in dots]), _FRAME.max_y_ticks),
    )
    name = f"Mean JCT against p99 slowdown at load {load:g}"
    return scatter_chart(kinds, axes, frame=_FRAME, name=name)


def _drawing_order(outcome: Outcome, colours: dict[str, str]) -> list[str]:
    """Return the policies, those with a colour on top and the baseline last."""
    rest = [name for name in outcome.policies if name not in colours]
    return [*rest, *reversed(colours)]


def _column(field: str) -> Column:
    return next(column for column in ALL if column.field == field)


def _said(column: Column, found: Estimate) -> str:
    return f"{written(column, found)} {spread(found)}".rstrip()


def _figure(title: str, what: str, chart: str) -> str:
    return (
        f"<figure><figcaption><b>{escaped(title)}</b> <span>{escaped(what)}</span></figcaption>"
        f"{chart}</figure>"
    )


def _figures(*figures: str) -> str:
    return f'<div class="figures of-2">{"".join(figures)}</div>'
