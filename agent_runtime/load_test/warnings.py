"""What a reader must know before believing a run."""

from __future__ import annotations

from agent_runtime.load_test.summary import LoadSummary

LAG_S = 0.020
"""The event loop, or the sending of turns, may be late by so much; as ``panjiu emulate`` has it."""

CPU_SHARE = 0.85
"""Of a core; beyond it queues form."""

OFF_RATIO = 0.05
ALL_OUTPUT = 0.95


def run_warnings(summary: LoadSummary) -> list[str]:
    """Return them, the gravest first."""
    found = [
        _client(summary),
        _too_soon(summary),
        _unfinished(summary),
        _prompts(summary),
        _outputs(summary),
        _sessions(summary),
    ]
    return [text for text in found if text is not None]


def _client(summary: LoadSummary) -> str | None:
    client = summary.client
    if not client.is_limit:
        return None
    cpu = "" if client.cpu_share is None else f", {client.cpu_share:.0%} of a core used"
    return (
        f"the client was the limit: its event loop lagged by p99 "
        f"{(client.loop_lag_s.p99 or 0) * 1e3:.0f} ms, turns were sent late by p99 "
        f"{(client.send_delay_s.p99 or 0) * 1e3:.0f} ms{cpu}. Times are too long and throughput "
        "too low: use fewer sessions, give the client a core of its own, or run several, each "
        "with its share"
    )


def _too_soon(summary: LoadSummary) -> str | None:
    inputs = summary.inputs
    if not summary.interrupted or summary.window.start_s >= inputs.ramp_s + inputs.warmup_s:
        return None
    return "interrupted before the warm-up was over: all turns count, those of ramp and warm-up too"


def _unfinished(summary: LoadSummary) -> str | None:
    num = summary.turns.unfinished
    if not num:
        return None
    if summary.interrupted:
        return (
            f"{num:,} turns had no whole reply yet: they are not in the latencies, which are too "
            "short by that"
        )
    return (
        f"{num:,} turns had no whole reply when the wait for them ended (--drain): they are not in "
        "the latencies, which are too short by that, and count as bad in goodput"
    )


def _prompts(summary: LoadSummary) -> str | None:
    off = summary.tokens.prompt_off_mean
    if off is None or off <= OFF_RATIO:
        return None
    return (
        f"prompts were {off:.1%} longer or shorter than scripted on average (at most "
        f"{summary.tokens.prompt_off_max or 0:.0%})"
    )


def _outputs(summary: LoadSummary) -> str | None:
    tokens = summary.tokens
    if not tokens.output_wanted or tokens.output >= ALL_OUTPUT * tokens.output_wanted:
        return None
    return (
        f"replies had {tokens.output / tokens.output_wanted:.0%} of the scripted tokens: the model "
        "ended them itself, so compare throughput in tokens with care"
    )


def _sessions(summary: LoadSummary) -> str | None:
    sessions = summary.sessions
    if sessions.stopped <= sessions.completed or summary.inputs.duration_s is None:
        return None
    return (
        f"{sessions.stopped:,} of {sessions.due:,} sessions that began in the window were not over "
        "at its end: JCT is that of the short ones; use a longer --duration"
    )
