"""What ``panjiu trace describe`` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent_runtime.report import quantities
from agent_runtime.workload.published_figure import PublishedFigure
from agent_runtime.workload.trace_statistics import Spread, TraceStatistics, TtlCeiling

Render = Callable[[float | None], str]
SPREAD_HEADINGS = ("mean", "p10", "p50", "p90", "p99", "max")


def spread_rows(stats: TraceStatistics) -> list[tuple[str, tuple[str, ...]]]:
    """Return the distributions as rows of text: what, and its mean, p10, p50, p90, p99 and max."""
    rows: tuple[tuple[str, Spread, Render], ...] = (
        ("calls a session", stats.calls_per_session, quantities.count),
        ("prompt tokens", stats.isl_tokens, quantities.count),
        ("output tokens", stats.osl_tokens, quantities.count),
        ("appended tokens", stats.appended_tokens, quantities.count),
        ("longest context", stats.peak_context_tokens, quantities.count),
        ("gap", stats.gap_s, quantities.seconds),
    )
    return [
        (what, tuple(render(getattr(spread, name)) for name in SPREAD_HEADINGS))
        for what, spread, render in rows
    ]


TTL_HEADINGS = ("KV kept for", "hits", "prefill", "gaps covered", "idle KV, M token-h")


def ttl_cells(ceiling: TtlCeiling) -> tuple[str, ...]:
    """Return a ceiling as cells of text."""
    return (
        "ever" if ceiling.ttl_s is None else quantities.short_seconds(ceiling.ttl_s),
        quantities.ratio(ceiling.token_hit_ratio),
        quantities.factor(ceiling.prefill_amplification),
        quantities.ratio(ceiling.gaps_covered_ratio),
        f"{ceiling.idle_token_hours / 1e6:,.1f}",
    )


def fact_lines(stats: TraceStatistics) -> tuple[str, ...]:
    """Return what is no distribution, a line each."""
    first, second, third, fourth = (quantities.ratio(share) for share in stats.gap_shares)
    what = (
        f"{stats.sessions:,} sessions, {stats.turns:,} model calls, {stats.sub_agents:,} "
        f"sub-agents, {stats.compactions:,} compactions; {stats.block_size_tokens} tokens a block"
    )
    gaps = f"gaps: {first} under 1 s, {second} to 10 s, {third} to 1 min, {fourth} longer"
    found = (
        f"{stats.input_output_ratio:,.0f} prompt tokens an output token; "
        f"{quantities.ratio(stats.shared_hit_ratio)} found by one cache without end for all"
    )
    return what, gaps, found


def trace_tables(stats: TraceStatistics, figures: Sequence[PublishedFigure]) -> Group:
    """Return everything a person wants to know of a workload at first."""
    spreads = _table("")
    for heading in SPREAD_HEADINGS:
        spreads.add_column(heading, justify="right")
    for what, cells in spread_rows(stats):
        spreads.add_row(what, *cells)
    ceilings = _table(TTL_HEADINGS[0])
    for heading in TTL_HEADINGS[1:]:
        ceilings.add_column(heading, justify="right")
    for ceiling in stats.ttl_ceilings:
        ceilings.add_row(*ttl_cells(ceiling))
    growth = _table("prompt at turn")
    for heading in ("p10", "p50", "p90", "sessions"):
        growth.add_column(heading, justify="right")
    for point in stats.context_growth:
        lengths = (point.p10_tokens, point.p50_tokens, point.p90_tokens)
        texts = [quantities.count(length) for length in lengths]
        growth.add_row(str(point.turn), *texts, f"{point.sessions:,}")
    parts = [Text(stats.name, style="bold"), *(Text(line) for line in fact_lines(stats))]
    return Group(*parts, spreads, growth, ceilings, *([_figures_table(figures)] if figures else []))


def _figures_table(figures: Sequence[PublishedFigure]) -> Table:
    table = _table("generated from published distributions")
    for heading in ("generated", "published", "source"):
        table.add_column(heading, justify="left" if heading == "source" else "right")
    for figure in figures:
        table.add_row(figure.what, figure.generated, figure.published, figure.source)
    return table


def _table(first_heading: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first_heading, style="dim", no_wrap=True)
    return table
