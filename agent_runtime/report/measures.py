"""What a report says of a run: the measures, how each is read from the summary, what it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent_runtime.measurement.summary import RunSummary
from agent_runtime.report import quantities


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of a comparison.

    Attributes:
        name: What the row is called, e.g. ``TTFT p99``.
        read: The measure of one run, as people read it.
        value: The number behind it when runs can be compared by it, else None.
    """

    name: str
    read: Callable[[RunSummary], str]
    value: Callable[[RunSummary], float | None] | None


def _of(
    name: str, render: Callable[[float | None], str], value: Callable[[RunSummary], float | None]
) -> Measure:
    return Measure(name, lambda run: render(value(run)), value)


SESSIONS_DONE = Measure(
    "sessions done", lambda run: f"{run.sessions.completed:,}/{run.sessions.total:,}", value=None
)
JCT_MEAN = _of("JCT mean", quantities.seconds, lambda run: run.jct_s.mean)
TTFT_P50 = _of("TTFT p50", quantities.seconds, lambda run: run.ttft_s.p50)
TTFT_P99 = _of("TTFT p99", quantities.seconds, lambda run: run.ttft_s.p99)
TPOT_P50 = _of("TPOT p50", quantities.seconds, lambda run: run.tpot_s.p50)
SLOWDOWN_MEAN = _of("slowdown mean", quantities.factor, lambda run: run.slowdown.mean)
PREFIX_HIT = _of("prefix hit", quantities.ratio, lambda run: run.prefix_hit_ratio)
HBM_USE_MEAN = _of("HBM use mean", quantities.ratio, lambda run: run.hbm_used_ratio.mean)

MEASURES: tuple[tuple[Measure, ...], ...] = (
    (
        SESSIONS_DONE,
        JCT_MEAN,
        _of("JCT p50", quantities.seconds, lambda run: run.jct_s.p50),
        _of("JCT p99", quantities.seconds, lambda run: run.jct_s.p99),
    ),
    (
        TTFT_P50,
        _of("TTFT p95", quantities.seconds, lambda run: run.ttft_s.p95),
        TTFT_P99,
        TPOT_P50,
        _of("TPOT p99", quantities.seconds, lambda run: run.tpot_s.p99),
        SLOWDOWN_MEAN,
        _of("slowdown p99", quantities.factor, lambda run: run.slowdown.p99),
    ),
    (
        PREFIX_HIT,
        HBM_USE_MEAN,
        _of("HBM use max", quantities.ratio, lambda run: run.hbm_used_ratio.max),
        _of("recomputed tokens", quantities.count, lambda run: run.recomputed_tokens),
        _of("loaded from host", quantities.count, lambda run: run.host_loaded_tokens),
        _of("KV pulled", quantities.num_bytes, lambda run: run.pulled_bytes),
        _of("preemptions", quantities.count, lambda run: run.preemptions),
    ),
    (
        _of("simulated time", quantities.seconds, lambda run: run.simulated_s),
        Measure("speed", lambda run: quantities.rate(run.turns_per_wall_s, "turns"), value=None),
    ),
)
"""Every row, in groups: sessions, turns, memory, the simulation itself."""

HEADLINES = (
    JCT_MEAN,
    TTFT_P50,
    TTFT_P99,
    TPOT_P50,
    SESSIONS_DONE,
    SLOWDOWN_MEAN,
    PREFIX_HIT,
    HBM_USE_MEAN,
)
"""What a reader in a hurry takes away."""

DEFINITIONS = (
    (
        "Session, turn",
        (
            "A session is one agent's growing conversation; a turn is one model call of it. "
            "Between turns the agent waits for its tools and sub-agents."
        ),
    ),
    (
        "JCT",
        (
            "Job completion time: from the start of a session to the end of its last turn, time "
            "in tools and in sub-agents included. Only of sessions that completed."
        ),
    ),
    (
        "TTFT",
        (
            "Time to first token: from the arrival of a turn to its first output token, queueing "
            "included. Short when the turn's prefix still lies where the turn runs."
        ),
    ),
    (
        "TPOT",
        (
            "Time per output token: mean time between the tokens of a turn after its first. Only "
            "of turns with two tokens or more."
        ),
    ),
    (
        "Slowdown",
        (
            "Time a session spent in model calls over the time the same calls take alone on an "
            "idle, warm replica. 1x means that sharing the rack cost it nothing."
        ),
    ),
    (
        "Prefix hit",
        ("Share of prompt tokens whose KV was found in the cache of the replica and not computed."),
    ),
    (
        "Recomputed tokens",
        (
            "Tokens whose KV had been computed before and was computed again, because it had been "
            "evicted or preempted or lay on another replica."
        ),
    ),
    (
        "HBM use",
        (
            "Share of KV blocks that hold KV, of running turns or cached for turns to come: mean "
            "over time and replicas, and the fullest replica at its fullest. Weights are not "
            "counted."
        ),
    ),
    (
        "Loaded from host",
        "Prompt tokens whose KV had left HBM and came back from host memory.",
    ),
    (
        "KV pulled",
        "KV copied from one replica to another over the rack's fabric.",
    ),
    (
        "Preemption",
        "A running turn that gave its KV blocks up to another and had to start anew.",
    ),
    (
        "Speed",
        (
            "Turns simulated in a second of the computer that ran the simulation. It says nothing "
            "of the rack, and is the only number here that changes from one computer to the next."
        ),
    ),
)
"""Name and meaning of every measure, in the order a reader meets them."""
