"""The charts of a load test: distributions, and the run over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent_runtime.load_test.summary import LoadSummary
from agent_runtime.report.axis import Axis, count_axis, log_time_axis, time_axis
from agent_runtime.report.markup import escaped
from agent_runtime.report.svg_chart import Frame, Sample, Series, cdf_chart, line_chart

FloatArray = NDArray[np.float64]

_NARROW, _WIDE = Frame(340, 230), Frame(520, 240)
CLASSES = ("c-base", "c-low", "c-high", "c-four")


def distributions(summaries: Sequence[tuple[str, LoadSummary]]) -> str:
    """Draw TTFT, TPOT and E2E of turns, a line a run."""
    figures = []
    for name, field in (
        ("Time to first token", "ttft_s"),
        ("Time per output token", "tpot_s"),
        ("End to end", "e2e_s"),
    ):
        samples = [
            Sample(label, _numbers(getattr(summary.columns, field)), css)
            for (label, summary), css in zip(summaries, CLASSES, strict=False)
        ]
        chart = cdf_chart(samples, frame=_NARROW, name=f"{name}, share of turns at or below")
        figures.append(_figure(name, "share of turns at or below", chart))
    return f'<div class="figures of-3">{"".join(figures)}</div>'


def over_time(summary: LoadSummary) -> str:
    """Draw streams, tokens a second and TTFT over the run; what counts lies in the window."""
    line = summary.timeline
    at_s = np.array([(index + 0.5) * line.bin_s for index in range(len(line.streams))])
    x = time_axis(np.append(at_s, at_s[-1] + line.bin_s / 2), _WIDE.max_x_ticks)
    ttft = np.array([np.nan if value is None else value for value in line.ttft_p50_s])
    figures = [
        _counted("Streams", "at a time", at_s, np.array(line.streams), x),
        _counted("Output", "tokens a second", at_s, np.array(line.output_tokens_per_s), x),
        _figure(
            "Time to first token",
            "median of the turns due then",
            line_chart(
                [Series("TTFT p50", at_s, ttft, CLASSES[0])],
                x,
                log_time_axis(ttft, _WIDE.max_y_ticks),
                frame=_WIDE,
                name="Median time to first token over the run",
            ),
        ),
        _counted("Errors", "in each stretch of time", at_s, np.array(line.errors, float), x),
    ]
    return f'<div class="figures of-2">{"".join(figures)}</div>'


def _counted(title: str, what: str, at_s: FloatArray, values: FloatArray, x: Axis) -> str:
    y = count_axis(values, _WIDE.max_y_ticks)
    series = [Series(what, at_s, values, f"{CLASSES[0]} plain", filled=True)]
    chart = line_chart(series, x, y, frame=_WIDE, name=f"{title} over the run, {what}")
    return _figure(title, what, chart)


def _figure(title: str, what: str, chart: str) -> str:
    return (
        f"<figure><figcaption><b>{escaped(title)}</b> <span>{escaped(what)}</span></figcaption>"
        f"{chart}</figure>"
    )


def _numbers(values: Sequence[float | None]) -> FloatArray:
    return np.array([value for value in values if value is not None], dtype=np.float64)
