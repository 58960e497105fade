"""What a comparison shows of every policy: columns, and how numbers are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent_runtime.comparison.outcome import Outcome
from agent_runtime.comparison.statistics import Estimate, estimate, paired_ratio
from agent_runtime.report import quantities
from scheduler.policies import POLICIES

JCT = "jct_mean_s"
"""What policies are sorted by."""

_WHOLE = 10
"""Percent from which on tenths don't matter."""


@dataclass(frozen=True, slots=True)
class Column:
    """A measure as a column.

    Attributes:
        field: Of ``CellResult``.
        title: Of the column.
        write: A number as a reader reads it.
        sign: +1 where less is better, -1 where more is, 0 where neither is.
    """

    field: str
    title: str
    write: Callable[[float], str]
    sign: int = 1


def _factor(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}x"


def _brief(value: float) -> str:
    """Write seconds with three digits and one unit, to stand in a narrow column."""
    for unit_s, unit in ((3600.0, "h"), (60.0, "m"), (1.0, "s")):
        if value >= unit_s:
            return f"{value / unit_s:.3g} {unit}"
    return f"{value * 1000:.3g} ms"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return quantities.count(value)


def _three(value: float) -> str:
    return f"{value:.3g}"


def _bytes_per_s(value: float) -> str:
    return f"{quantities.num_bytes(value)}/s"


TABLE = (
    Column(JCT, "JCT", _brief),
    Column("jct_p99_s", "p99", _brief),
    Column("ttft_p99_s", "TTFT p99", _brief),
    Column("slowdown_p99", "slow p99", _factor),
    Column("goodput_per_h", "good/h", _three, -1),
    Column("hit_ratio", "hit", _share, -1),
)
"""What the terminal has room for."""

PAGE = (
    Column(JCT, "JCT mean", _brief),
    Column("jct_p99_s", "JCT p99", _brief),
    Column("ttft_mean_s", "TTFT mean", _brief),
    Column("ttft_p99_s", "TTFT p99", _brief),
    Column("slowdown_mean", "slowdown", _factor),
    Column("slowdown_p99", "slowdown p99", _factor),
    Column("goodput_per_h", "good/h", _three, -1),
    Column("hit_ratio", "hit", _share, -1),
)
"""What a page shows at once."""

ALL = (
    Column(JCT, "JCT mean", quantities.seconds),
    Column("jct_p50_s", "JCT p50", quantities.seconds),
    Column("jct_p95_s", "JCT p95", quantities.seconds),
    Column("jct_p99_s", "JCT p99", quantities.seconds),
    Column("jct_max_s", "JCT max", quantities.seconds),
    Column("ttft_mean_s", "TTFT mean", quantities.seconds),
    Column("ttft_p99_s", "TTFT p99", quantities.seconds),
    Column("tpot_mean_s", "TPOT mean", quantities.seconds),
    Column("slowdown_mean", "slowdown mean", _factor),
    Column("slowdown_p99", "slowdown p99", _factor),
    Column("slowdown_max", "slowdown max", _factor),
    Column("jain_slowdown", "Jain index", lambda value: f"{value:.3f}", -1),
    Column("sessions_per_h", "sessions/h", _three, -1),
    Column("turns_per_s", "turns/s", _three, -1),
    Column("good_ratio", "good sessions", _share, -1),
    Column("goodput_per_h", "good sessions/h", _three, -1),
    Column("hit_ratio", "prefix hit", _share, -1),
    Column("recomputed_tokens", "recomputed tokens", _number),
    Column("preemptions", "preemptions", _number),
    Column("pulled_bytes", "pulled over links", quantities.num_bytes, 0),
    Column("pulled_bytes_per_s", "pulled a second", _bytes_per_s, 0),
    Column("host_loaded_bytes", "loaded from host", quantities.num_bytes, 0),
    Column("host_loaded_bytes_per_s", "loaded a second", _bytes_per_s, 0),
    Column("idle_kv_byte_s", "idle KV, byte-seconds", _three, 0),
    Column("busy_ratio", "busy", _share, 0),
    Column("pauses", "pauses", _number, 0),
    Column("longest_held_s", "longest held", quantities.seconds),
    Column("failed_sessions", "failed sessions", _number),
)
"""What a page shows to who asks for more; JSON and CSV hold as much."""


@dataclass(frozen=True, slots=True)
class Row:
    """A policy at a load.

    Attributes:
        is_bound: Whether it knows the future.
        estimates: One a column; None where nothing was measured.
        to_baseline: Its mean JCT over the baseline's, seed by seed.
    """

    policy: str
    is_bound: bool
    estimates: tuple[Estimate | None, ...]
    to_baseline: Estimate | None


def rows(outcome: Outcome, load: float, columns: Sequence[Column]) -> list[Row]:
    """Return the policies at a load, the least mean JCT first, those without any last."""
    results = outcome.results
    names = sorted({result.policy for result in results if result.load == load})

    def key(name: str) -> float:
        found = estimate(results, name, load, JCT)
        return float("inf") if found is None else found.mean

    return [
        Row(
            name,
            POLICIES[name].needs_future,
            tuple(estimate(results, name, load, column.field) for column in columns),
            paired_ratio(results, name, outcome.baseline, load, JCT),
        )
        for name in sorted(names, key=key)
    ]


def best(found: Sequence[Row], index: int, sign: int) -> float | None:
    """Return the best mean of a column among policies; bounds don't count."""
    means = [
        estimates.mean
        for row in found
        if not row.is_bound and (estimates := row.estimates[index]) is not None
    ]
    return min(means, key=lambda mean: sign * mean) if means and sign else None


def written(column: Column, found: Estimate | None) -> str:
    """Write a mean as a reader reads it."""
    return quantities.MISSING if found is None else column.write(found.mean)


def spread(found: Estimate | None) -> str:
    """Write half the width of an interval as a share of its mean; nothing where there is none."""
    if found is None or found.high is None or not found.mean:
        return ""
    percent = 100 * (found.high - found.mean) / abs(found.mean)
    return f"±{percent:.0f} %" if percent >= _WHOLE else f"±{percent:.1g} %"
