"""A comparison as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_runtime.comparison.cell import CellResult
from agent_runtime.comparison.statistics import estimate
from agent_runtime.measurement.summary import Assumption
from agent_runtime.report.axis import count_axis
from agent_runtime.report.bench_measures import ALL, Column, best, rows
from agent_runtime.report.bench_table import verdict_lines
from agent_runtime.report.markup import escaped
from agent_runtime.report.page_shell import assumption_table, document, section
from agent_runtime.report.svg_chart import Frame, Series, line_chart
from scheduler.policies import POLICIES

_FRAME = Frame(540, 330)
_DRAWN = 5
_CLASSES = ("c-base", "c-low", "c-high", "c-four", "c-five", "c-six")


@dataclass(frozen=True, slots=True)
class BenchPage:
    """What the page is about.

    Attributes:
        results: All cells.
        policy: Whose standing is told.
        facts: Lines about workload, rack and load.
        assumptions: About the hardware.
        command: That makes the page again.
    """

    results: Sequence[CellResult]
    policy: str
    facts: Sequence[str]
    assumptions: Sequence[Assumption]
    command: str


def bench_page(page: BenchPage) -> str:
    """Return the page; the same input gives the same bytes."""
    loads = sorted({result.load for result in page.results})
    facts = "".join(f"<p>{escaped(line)}</p>" for line in page.facts)
    header = (
        '<header>\n<p class="eyebrow">Panjiu comparison</p>\n<h1>Policies beside each other</h1>\n'
        f'<pre class="command" aria-label="Command to make this page again"><code>'
        f"{escaped(page.command)}</code></pre>\n{facts}</header>\n"
    )
    verdicts = [line for load in loads for line in verdict_lines(page.results, page.policy, load)]
    items = "".join(f"<li>{escaped(line)}</li>\n" for line in verdicts)
    body = [header]
    if items:
        body.append(section("In short", f'<ul class="notes">{items}</ul>'))
    if len(loads) > 1:
        body.append(section("By load", _charts(page.results, loads), _chart_lead()))
    body += [section(f"Load {load:g}", _table(page.results, load)) for load in loads]
    body.append(section("The policies", _policies(page.results)))
    body.append(section("Numbers about the hardware", assumption_table(page.assumptions)))
    return document("Panjiu: policies beside each other", "".join(body))


def _chart_lead() -> str:
    return f"The {_DRAWN} policies with the least mean JCT at the highest load, and bounds."


def _charts(results: Sequence[CellResult], loads: Sequence[float]) -> str:
    found = rows(results, loads[-1], ALL)
    drawn = [row.policy for row in found if not row.is_bound][:_DRAWN]
    drawn += [row.policy for row in found if row.is_bound]
    figures = [
        _figure(results, loads, drawn, column, scale, unit)
        for column, scale, unit in (
            (_column("jct_mean_s"), 3600.0, "hours"),
            (_column("slowdown_p99"), 1.0, "times as long as alone"),
        )
    ]
    return f'<div class="figures of-2">{"".join(figures)}</div>'


def _column(field: str) -> Column:
    return next(column for column in ALL if column.field == field)


def _figure(
    results: Sequence[CellResult],
    loads: Sequence[float],
    policies: Sequence[str],
    column: Column,
    scale: float,
    unit: str,
) -> str:
    x_values = np.array(loads)
    series = [
        Series(
            policy,
            x_values,
            np.array([estimate(results, policy, load, column.field).mean for load in loads])
            / scale,
            _CLASSES[index % len(_CLASSES)],
        )
        for index, policy in enumerate(policies)
        if {r.load for r in results if r.policy == policy} >= set(loads)
    ]
    highest = np.concatenate([line.y for line in series]) if series else np.array([1.0])
    chart = line_chart(
        series,
        count_axis(x_values, _FRAME.max_x_ticks),
        count_axis(highest, _FRAME.max_y_ticks),
        frame=_FRAME,
        name=f"{column.title}, {unit}, by load",
    )
    return (
        f"<figure><figcaption><b>{escaped(column.title)}</b> "
        f"<span>{escaped(unit)}, by load</span></figcaption>{chart}</figure>"
    )


def _table(results: Sequence[CellResult], load: float) -> str:
    found = rows(results, load, ALL)
    head = "".join(
        f'<th scope="col">{escaped(row.policy)}{" (bound)" if row.is_bound else ""}</th>'
        for row in found
    )
    lines = []
    for index, column in enumerate(ALL):
        least = best(found, index, column.sign)
        cells = "".join(
            f"<td{' class=base' if row.estimates[index].mean == least else ''}>"
            f"{escaped(column.write(row.estimates[index].mean))}</td>"
            for row in found
        )
        lines.append(f'<tr><th scope="row">{escaped(column.title)}</th>{cells}</tr>\n')
    return (
        f'<div class="wide"><table class="compare"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _policies(results: Sequence[CellResult]) -> str:
    names = sorted({result.policy for result in results})
    body = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td class="source">'
        f'{escaped(POLICIES[name].source)}</td><td class="source">'
        f"{escaped(POLICIES[name].settings)}</td></tr>\n"
        for name in names
    )
    return (
        '<div class="wide"><table class="assumptions"><thead><tr><td></td><th scope="col">source'
        f'</th><th scope="col">set to</th></tr></thead><tbody>{body}</tbody></table></div>'
    )
