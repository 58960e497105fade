"""The HTML page about a workload: one file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.report import quantities
from agent_runtime.report.axis import count_axis, log_time_axis, ratio_axis
from agent_runtime.report.markup import escaped
from agent_runtime.report.page_shell import document, section
from agent_runtime.report.svg_chart import Frame, Sample, Series, cdf_chart, line_chart
from agent_runtime.report.trace_table import (
    SPREAD_HEADINGS,
    TTL_HEADINGS,
    fact_lines,
    spread_rows,
    ttl_cells,
)
from agent_runtime.workload.context_growth import ContextGrowth
from agent_runtime.workload.published_figure import PublishedFigure
from agent_runtime.workload.trace_statistics import TraceStatistics

FloatArray = NDArray[np.float64]
_HALF = Frame(520, 260)
_GROWTH = "At each turn, over the sessions that get so far. Point at a chart to read it."
_CEILINGS = (
    "If each session's KV were kept for so long after every turn, and no longer: what would be "
    "found of its next prompt, and how much KV would lie idle. Times are those of gaps alone."
)


@dataclass(frozen=True, slots=True)
class TraceDetail:
    """A workload as the page shows it.

    Attributes:
        statistics: Its numbers.
        growth: Of its contexts.
        gaps_s: [n], all gaps.
        figures: What a generator made, beside what was published.
        notes: What a reader should know.
    """

    statistics: TraceStatistics
    growth: ContextGrowth
    gaps_s: FloatArray
    figures: Sequence[PublishedFigure]
    notes: Sequence[str]


def trace_page(detail: TraceDetail, command: str) -> str:
    """Return a self-contained page; the same input gives the same bytes.

    Args:
        detail: What it is about.
        command: The shell command that makes it again.
    """
    stats = detail.statistics
    facts = "".join(f"<p>{escaped(line)}</p>" for line in fact_lines(stats))
    header = (
        '<header>\n<p class="eyebrow">Panjiu workload</p>\n'
        f"<h1>{escaped(stats.name)}</h1>\n"
        f'<pre class="command" aria-label="Command to make this page again"><code>'
        f"{escaped(command)}</code></pre>\n{facts}</header>\n"
    )
    body = [
        header,
        section("Sizes and gaps", _spread_table(stats)),
        section("Contexts and gaps", _charts(detail), _GROWTH),
        section("What caches could find", _ceilings(stats), _CEILINGS),
    ]
    if detail.figures:
        body.append(section("Generated from what was published", _figures_table(detail.figures)))
    if detail.notes:
        items = "".join(f"<li>{escaped(note)}</li>\n" for note in detail.notes)
        body.append(section("Notes", f'<ul class="notes">{items}</ul>'))
    return document(f"Panjiu: {stats.name}", "".join(body))


def _spread_table(stats: TraceStatistics) -> str:
    rows = [(what, *cells) for what, cells in spread_rows(stats)]
    return _table(("", *SPREAD_HEADINGS), rows)


def _charts(detail: TraceDetail) -> str:
    growth = detail.growth
    series = [
        Series(label, growth.turn, tokens / 1000, css_class)
        for label, tokens, css_class in (
            ("p90", growth.p90_tokens, "c-high"),
            ("p50", growth.p50_tokens, "c-base"),
            ("p10", growth.p10_tokens, "c-low"),
        )
    ]
    x = count_axis(growth.turn, _HALF.max_x_ticks)
    y = count_axis(growth.p90_tokens / 1000, _HALF.max_y_ticks)
    contexts = line_chart(series, x, y, frame=_HALF, name="Prompt by turn, thousand tokens")
    gaps = Sample("gaps", detail.gaps_s, "c-base")
    median = quantities.seconds(detail.statistics.gap_s.p50)
    cdf = cdf_chart([gaps], frame=_HALF, name=f"Gaps between turns, median {median}")
    return _figures(
        _figure("Prompt", "thousand tokens, by turn", contexts),
        _figure("Gap before a turn", "share at or below", cdf),
    )


def _ceilings(stats: TraceStatistics) -> str:
    kept = [c for c in stats.ttl_ceilings if c.ttl_s is not None]
    ttl_s = np.array([c.ttl_s for c in kept], dtype=np.float64)
    hits = np.array([c.token_hit_ratio for c in kept])
    covered = np.array([c.gaps_covered_ratio for c in kept])
    idle = np.array([c.idle_token_hours / 1e6 for c in kept])
    x = log_time_axis(ttl_s, _HALF.max_x_ticks)
    found = line_chart(
        [
            Series("gaps covered", ttl_s, covered, "c-low"),
            Series("prompt tokens found", ttl_s, hits, "c-base"),
        ],
        x,
        ratio_axis(),
        frame=_HALF,
        name="Gaps covered and prompt tokens found, by time to live",
    )
    y = count_axis(idle, _HALF.max_y_ticks)
    series = [Series("idle KV", ttl_s, idle, "c-base", filled=True)]
    held = line_chart(
        series, x, y, frame=_HALF, name="Idle KV, million token-hours, by time to live"
    )
    charts = _figures(
        _figure("Found", "by how long KV is kept", found),
        _figure("Idle KV", "million token-hours, by how long it is kept", held),
    )
    return charts + _table(TTL_HEADINGS, [ttl_cells(c) for c in stats.ttl_ceilings])


def _figures_table(figures: Sequence[PublishedFigure]) -> str:
    rows = [(f.what, f.generated, f.published, f.source) for f in figures]
    return _table(("", "generated", "published", "source"), rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escaped(heading)}</th>' for heading in headings[1:])
    first = f'<th scope="col">{escaped(headings[0])}</th>' if headings[0] else "<td></td>"
    body = "".join(
        f'<tr><th scope="row">{escaped(row[0])}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="wide"><table class="compare"><thead><tr>{first}{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _figure(title: str, what: str, chart: str) -> str:
    return f"<figure><figcaption><b>{title}</b> <span>{what}</span></figcaption>{chart}</figure>"


def _figures(*figures: str) -> str:
    return f'<div class="figures of-2">{"".join(figures)}</div>'
