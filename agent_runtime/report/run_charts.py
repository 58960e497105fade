"""The charts of a report: which runs, which arrays, on which axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agent_runtime.measurement.summary import RunDetail
from agent_runtime.report import quantities
from agent_runtime.report.axis import count_axis, ratio_axis, time_axis
from agent_runtime.report.markup import escaped
from agent_runtime.report.run_labels import RunLabel
from agent_runtime.report.svg_chart import Frame, Sample, Series, cdf_chart, line_chart

FloatArray = NDArray[np.float64]
Runs = Sequence[tuple[RunLabel, RunDetail]]

_NARROW, _HALF, _WIDE = Frame(340, 230), Frame(520, 240), Frame(1060, 260)


def distribution_charts(runs: Runs) -> str:
    """Draw how TTFT, TPOT and JCT are distributed, one line a run."""
    read: tuple[tuple[str, str, Callable[[RunDetail], FloatArray]], ...] = (
        ("Time to first token", "share of turns at or below", lambda run: run.ttft_s),
        ("Time per output token", "share of turns at or below", lambda run: run.tpot_s),
        ("Session completion time", "share of sessions at or below", lambda run: run.jct_s),
    )
    figures = []
    for title, what, values_of in read:
        samples = [Sample(label.name, values_of(run), label.css_class) for label, run in runs]
        name = f"{title}, {what}. {_medians(samples)}"
        figures.append(_figure(title, what, cdf_chart(samples, frame=_NARROW, name=name)))
    return _grid(figures, columns=3)


def kv_charts(runs: Runs) -> str:
    """Draw the share of KV blocks that hold KV over time, one chart a run on shared axes."""
    frame, columns = _frame_for(len(runs))
    x = time_axis(_all_times(runs), frame.max_x_ticks)
    figures = []
    for label, run in runs:
        line = run.timeline
        series = [
            _area("holding KV", line.time_s, line.kv_used_ratio, _soft(label)),
            _area("of running turns", line.time_s, line.kv_active_ratio, _strong(label)),
        ]
        name = f"KV blocks over simulated time, {label.name}"
        chart = line_chart(series, x, ratio_axis(), frame=frame, name=name)
        figures.append(_figure(_swatch(label), "share of KV blocks", chart))
    return _grid(figures, columns)


def load_charts(runs: Runs) -> str:
    """Draw live sessions and running turns over time, one chart a run on shared axes."""
    frame, columns = _frame_for(len(runs))
    x = time_axis(_all_times(runs), frame.max_x_ticks)
    counts = [
        a for _, run in runs for a in (run.timeline.live_sessions, run.timeline.running_turns)
    ]
    y = count_axis(np.concatenate(counts), frame.max_y_ticks)
    figures = []
    for label, run in runs:
        line = run.timeline
        series = [
            _area("live sessions", line.time_s, line.live_sessions, _soft(label)),
            _area("turns in engines", line.time_s, line.running_turns, _strong(label)),
        ]
        name = f"Live sessions and turns in engines over simulated time, {label.name}"
        chart = line_chart(series, x, y, frame=frame, name=name)
        figures.append(_figure(_swatch(label), "how many at once", chart))
    return _grid(figures, columns)


def _area(label: str, x: FloatArray, y: FloatArray, css_class: str) -> Series:
    return Series(label, x, y, css_class, filled=True)


def _frame_for(num_runs: int) -> tuple[Frame, int]:
    """Return the size of one chart and how many stand in a row."""
    return {1: (_WIDE, 1), 2: (_HALF, 2)}.get(num_runs, (_NARROW, 3))


def _all_times(runs: Runs) -> FloatArray:
    return np.concatenate([run.timeline.time_s for _, run in runs])


def _medians(samples: Sequence[Sample]) -> str:
    medians = (
        f"{sample.label} {quantities.seconds(float(np.median(sample.values_s)))}"
        for sample in samples
        if sample.values_s.size
    )
    return f"Medians: {', '.join(medians) or 'none'}"


def _soft(label: RunLabel) -> str:
    return f"{label.css_class} plain soft"


def _strong(label: RunLabel) -> str:
    return f"{label.css_class} plain"


def _swatch(label: RunLabel) -> str:
    return f'<i class="swatch {label.css_class}"></i>{escaped(label.name)}'


def _figure(title_html: str, what: str, chart: str) -> str:
    return (
        f"<figure><figcaption><b>{title_html}</b> <span>{what}</span></figcaption>{chart}</figure>"
    )


def _grid(figures: Sequence[str], columns: int) -> str:
    return f'<div class="figures of-{columns}">{"".join(figures)}</div>'
