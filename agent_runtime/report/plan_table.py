"""A capacity plan as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.table import Table
from rich.text import Text

from agent_runtime.report import quantities
from hw_model.agent_load import MixedGap
from hw_model.capacity_plan import Plan, PlanRow
from hw_model.claim import Band
from hw_model.planner import Ask, Candidate


def plan_heading(ask: Ask) -> str:
    """Return the ask in two lines."""
    load, slo = ask.load, ask.slo
    gaps = "agents' tool gaps" if isinstance(load.gap, MixedGap) else "tool gaps"
    return (
        f"{ask.model.name} on {ask.rack.name}: {load.sessions:,} sessions at "
        f"{load.context_tokens:,} tokens\n"
        f"a turn: {load.append_tokens:,} new in, {load.output_tokens:,} out, {gaps} of mean "
        f"{quantities.seconds(load.gap.mean_s)}; TTFT <= {quantities.seconds(slo.ttft_s)}, TPOT <= "
        f"{quantities.seconds(slo.tpot_s)}"
    )


def plan_table(plan: Plan) -> Table:
    """Return one row a layout: base, and below it low to high; 80 columns are enough."""
    table = _table("chips", "layout", "TTFT", "TPOT", "resident", "carries")
    for row in plan.rows:
        base = row.base
        table.add_row(
            Text(f"{'✓' if base.meets else '✗'} {base.num_chips:>3}"),
            _two_lines(
                f"{base.num_replicas} x {base.shape.parallelism.describe()}", _precisions(row)
            ),
            banded(row, lambda c: c.estimate.ttft_s, quantities.seconds),
            banded(row, lambda c: c.estimate.tpot_s, quantities.seconds),
            banded(row, lambda c: c.resident_sessions, quantities.count),
            banded(row, lambda c: c.carries, quantities.count),
        )
    return table


def advice_table(plan: Plan) -> Table:
    """Return what holds each layout back and what would help, one row a layout."""
    table = _table("chips", "layout", "busy", "held back by", "what carries more")
    for row in plan.rows:
        base = row.base
        table.add_row(
            Text(f"{base.num_chips:>5}"),
            Text(f"{base.num_replicas} x {base.shape.parallelism.describe()} {_precisions(row)}"),
            Text(f"{base.estimate.busy_share:.0%}"),
            Text(row.bottleneck.describe()),
            Text(relief_words(row)),
        )
    return table


def banded(
    row: PlanRow, value: Callable[[Candidate], float], render: Callable[[float], str]
) -> Text:
    """Return the base value, and below it ``low to high`` where they differ."""
    base = render(value(row.base))
    ends = [
        render(value(row.bands[band])) if band in row.bands else "none"
        for band in (Band.LOW, Band.HIGH)
    ]
    return _two_lines(base, "" if set(ends) == {base} else _range(*ends))


def relief_words(row: PlanRow) -> str:
    """Return what would carry more, with what it was estimated at."""
    relief = row.relief
    if relief is None:
        return "no neighbouring layout is better"
    chips = relief.num_chips
    where = "" if chips == row.base.num_chips else f" on {chips} chips"
    if relief.limit_s is not None:
        then, now = quantities.seconds(relief.limit_s), quantities.seconds(relief.limit_now_s)
        return f"{relief.change}: {then} instead of {now}{where}"
    return f"{relief.change}: carries {relief.sessions:,}{where}"


def _range(low: str, high: str) -> str:
    """Join two readings, a shared unit said once."""
    low_number, _, low_unit = low.partition(" ")
    _, _, high_unit = high.partition(" ")
    return f"{low_number if low_unit == high_unit else low} to {high}"


def _two_lines(first: str, second: str) -> Text:
    return Text.assemble(first, "\n", (second, "dim")) if second else Text(first)


def _precisions(row: PlanRow) -> str:
    return f"{row.base.shape.precision}, KV {row.base.shape.kv_precision}"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        words = heading in {"chips", "layout", "held back by", "what carries more"}
        table.add_column(
            heading,
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=heading == "layout",
        )
    return table
