"""The HTML page of a capacity plan: one file that needs no network, no script and no other file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rich.text import Text

from agent_runtime.measurement.summary import Assumption
from agent_runtime.report import quantities
from agent_runtime.report.axis import count_axis, log_time_axis
from agent_runtime.report.markup import escaped
from agent_runtime.report.page_shell import assumption_table, document, section
from agent_runtime.report.plan_front import Pair, fronts
from agent_runtime.report.plan_table import banded, plan_heading, relief_words
from agent_runtime.report.plan_words import notes, recommendation
from agent_runtime.report.scatter_chart import Dot, Kind, ScatterAxes, scatter_chart
from agent_runtime.report.svg_chart import Frame
from hw_model.capacity_plan import Plan, PlanRow
from hw_model.planner import Candidate

_FRAME = Frame(520, 340)
_CLASSES = ("c-base", "c-low", "c-high", "c-four", "c-five", "c-six")


def plan_page(plan: Plan, assumptions: Sequence[Assumption], command: str) -> str:
    """Return a self-contained page about ``plan``; the same input gives the same bytes.

    Args:
        plan: What to show.
        assumptions: The numbers about the hardware that the plan rests on.
        command: The shell command that makes this page again.
    """
    title, _, ask = plan_heading(plan.ask).partition("\n")
    advice = "".join(f'<p class="what">{escaped(text)}</p>' for text in recommendation(plan))
    noted = "".join(f"<li>{escaped(note)}</li>" for note in notes(plan))
    body = (
        f'<p class="eyebrow">Panjiu capacity plan</p><h1>{escaped(title)}</h1>'
        f'<p class="lead">{escaped(ask)}</p>{advice}'
        f'<p class="command"><code>{escaped(command)}</code></p>'
        + section("Chips against what they buy", _charts(plan))
        + section("Layouts", _table(plan.rows))
        + section("What these numbers rest on", assumption_table(assumptions))
        + section("Notes", f'<ul class="notes">{noted}</ul>')
    )
    return document(title, body)


def _charts(plan: Plan) -> str:
    """Draw chips against TTFT, of layouts that keep all sessions resident, and against capacity."""
    resident = [c for c in plan.candidates if c.resident_sessions == plan.ask.load.sessions]
    pairs = dict.fromkeys(c.shape.precisions for c in plan.candidates)
    classes = dict(zip(pairs, itertools.cycle(_CLASSES), strict=False))
    chips = count_axis(np.array([float(c.num_chips) for c in plan.candidates]), _FRAME.max_x_ticks)
    slo_s = plan.ask.slo.ttft_s
    ttft_s = [slo_s, *(c.estimate.ttft_s for c in resident)]
    ttft = log_time_axis(np.array(ttft_s), _FRAME.max_y_ticks)
    carries = count_axis(np.array([float(c.carries) for c in plan.candidates]), _FRAME.max_y_ticks)
    first = scatter_chart(
        _kinds(resident, classes, lambda c: c.estimate.ttft_s, lowest=True),
        ScatterAxes(chips, "chips", ttft, slo_s),
        frame=_FRAME,
        name="chips against mean TTFT",
    )
    second = scatter_chart(
        _kinds(plan.candidates, classes, lambda c: float(c.carries), lowest=False),
        ScatterAxes(chips, "chips", carries, float(plan.ask.load.sessions)),
        frame=_FRAME,
        name="chips against sessions carried",
    )
    legend = " ".join(
        f'<span style="white-space:nowrap;margin-right:14px"><i class="swatch {css}"></i>'
        f"{escaped(f'{weights} weights, {kv} KV')}</span>"
        for (weights, kv), css in classes.items()
    )
    none = "" if resident else " No layout keeps all of them resident."
    return (
        f'<p class="lead">{legend}<br>A line joins what no layout of the same precisions beats. '
        "Point at a dot to read it.</p>"
        f'<div class="figures of-2"><figure><figcaption>Mean TTFT<span>layouts that keep every '
        f"session resident; base.{none}</span></figcaption>{first}</figure>"
        "<figure><figcaption>Sessions carried<span>within both SLOs, all resident; base</span>"
        f"</figcaption>{second}</figure></div>"
    )


def _kinds(
    candidates: Iterable[Candidate],
    classes: dict[Pair, str],
    value: Callable[[Candidate], float],
    *,
    lowest: bool,
) -> list[Kind]:
    placed = fronts(candidates, value, lowest=lowest)
    return [
        Kind(
            css,
            [
                Dot(
                    float(each.candidate.num_chips),
                    each.value,
                    _said(each.candidate),
                    each.on_front,
                )
                for each in placed.get(pair, [])
            ],
        )
        for pair, css in classes.items()
    ]


def _said(candidate: Candidate) -> str:
    shape, estimate = candidate.shape, candidate.estimate
    return (
        f"{candidate.num_replicas} x {shape.parallelism.describe()}, {shape.precision} weights, "
        f"{shape.kv_precision} KV: {candidate.num_chips} chips\n"
        f"TTFT {quantities.seconds(estimate.ttft_s)}, TPOT {quantities.seconds(estimate.tpot_s)}\n"
        f"carries {candidate.carries:,} sessions"
    )


def _table(rows: Sequence[PlanRow]) -> str:
    columns: tuple[tuple[str, Callable[[Candidate], float], Callable[[float], str]], ...] = (
        ("TTFT", lambda c: c.estimate.ttft_s, quantities.seconds),
        ("TPOT", lambda c: c.estimate.tpot_s, quantities.seconds),
        ("resident", lambda c: c.resident_sessions, quantities.count),
        ("carries", lambda c: c.carries, quantities.count),
    )
    heads = "".join(
        f'<th scope="col" style="text-align:right">{name}</th>' for name, _, _ in columns
    )
    body = ""
    for row in rows:
        base = row.base
        cells = "".join(
            f"<td>{_lines(banded(row, value, render))}</td>" for _, value, render in columns
        )
        spread = base.shape.parallelism.describe()
        name = f"{base.num_replicas} x {spread}<br>{base.shape.precision}, "
        body += (
            f'<tr><th scope="row">{name}KV {base.shape.kv_precision}</th><td>{base.num_chips}</td>'
            f"<td>{'yes' if base.meets else 'no'}</td>{cells}"
            f'<td class="source">{escaped(row.bottleneck.describe())}<br>'
            f"{escaped(relief_words(row))}</td></tr>\n"
        )
    return (
        '<div class="wide"><table class="assumptions"><thead><tr><td></td>'
        '<th scope="col">chips</th>'
        f'<th scope="col">meets</th>{heads}<th scope="col">held back by; relief</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _lines(text: Text) -> str:
    return "<br>".join(escaped(line) for line in text.plain.splitlines())
