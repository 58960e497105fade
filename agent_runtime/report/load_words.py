"""A load test in words and figures, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent_runtime.load_test.summary import LoadSummary
from agent_runtime.measurement.summary import Distribution
from agent_runtime.report import quantities

COLUMNS = ("mean", "p50", "p95", "p99", "max")


@dataclass(frozen=True, slots=True)
class Latency:
    """One distribution of a load test.

    Attributes:
        name: What the row is called.
        meaning: What it measures.
        read: The distribution.
    """

    name: str
    meaning: str
    read: Callable[[LoadSummary], Distribution]

    def cells(self, summary: LoadSummary) -> list[str]:
        """Return what stands under ``COLUMNS``."""
        found = self.read(summary)
        return [quantities.seconds(getattr(found, column)) for column in COLUMNS]


LATENCIES = (
    Latency("TTFT", "from when a turn was due to its first token", lambda s: s.ttft_s),
    Latency("TPOT", "(last token - first token) / (output tokens - 1)", lambda s: s.tpot_s),
    Latency("ITL", "from a chunk with tokens to the next", lambda s: s.itl_s),
    Latency(
        "token gap",
        "the same a token: those of a chunk share its time equally",
        lambda s: s.token_gap_s,
    ),
    Latency("E2E", "from when a turn was due to its last token", lambda s: s.e2e_s),
    Latency(
        "JCT",
        "of completed sessions that began in the window: from their start to their end, gaps and "
        "sub-agents included",
        lambda s: s.jct_s,
    ),
)


def title(summary: LoadSummary) -> str:
    """Return what was loaded, with what."""
    inputs = summary.inputs
    return f"{inputs.workload}, {_load(summary)} on {inputs.model} at {inputs.url}"


def counts(summary: LoadSummary) -> list[tuple[str, str]]:
    """Return what is no distribution: names and values."""
    turns, sessions, through = summary.turns, summary.sessions, summary.throughput
    tokens, goodput = summary.tokens, summary.goodput
    rows = [
        ("turns", _with(f"{turns.answered:,} answered", turns.failed, turns.unfinished)),
        (
            "sessions",
            f"{sessions.completed:,} of {sessions.due:,} completed"
            + (f", {sessions.failed:,} failed" if sessions.failed else ""),
        ),
        ("turns a second", quantities.rate(through.turns_per_s, "turns")),
        ("output", quantities.rate(through.output_tokens_per_s, "tokens")),
        ("prompts", quantities.rate(through.prompt_tokens_per_s, "tokens")),
        (
            "streams at a time",
            f"{quantities.count(through.streams_mean)} mean, {through.streams_max:,} max",
        ),
        ("prompt tokens cached", quantities.ratio(tokens.cached_ratio)),
    ]
    if _objectives(summary):
        good_rate = quantities.rate(goodput.turns_per_s, "turns")
        rows += [
            (
                f"good turns ({_objectives(summary)})",
                f"{quantities.ratio(goodput.turn_ratio)}, {good_rate}",
            ),
            ("good sessions", quantities.ratio(goodput.session_ratio)),
        ]
    return rows


def facts(summary: LoadSummary) -> list[str]:
    """Return how it was measured."""
    inputs, window, tokens = summary.inputs, summary.window, summary.tokens
    off = (
        "the server told no prompt lengths"
        if tokens.prompt_off_mean is None
        else f"prompts off the script by {tokens.prompt_off_mean:.2%} on average"
    )
    client = summary.client
    cpu = "" if client.cpu_share is None else f", {client.cpu_share:.0%} of a core"
    when = (
        f"{window.length_s:.1f} s count, from {window.start_s:.1f} s on; ramp {inputs.ramp_s:g} s, "
        f"warm-up {inputs.warmup_s:g} s"
    )
    lengths = (
        f"{off}; {inputs.tokens_per_word:.3f} tokens a word ({inputs.counts_from}); replies: "
        f"{inputs.reply_length}"
    )
    keeping_up = (
        f"client: event loop late by p99 {(client.loop_lag_s.p99 or 0) * 1e3:.1f} ms, turns sent "
        f"late by p99 {(client.send_delay_s.p99 or 0) * 1e3:.1f} ms{cpu}"
    )
    salt = f"--salt {inputs.salt or repr('')} sends the same prompts again"
    return [when, lengths, keeping_up, salt]


def _load(summary: LoadSummary) -> str:
    inputs = summary.inputs
    if inputs.arrival == "closed":
        return f"{inputs.sessions:,} sessions at a time"
    most = "" if inputs.sessions is None else f", at most {inputs.sessions:,} sessions"
    return f"arrivals {inputs.arrival}{most}"


def _objectives(summary: LoadSummary) -> str:
    named = (("TTFT", summary.inputs.slo_ttft_s), ("TPOT", summary.inputs.slo_tpot_s))
    return ", ".join(
        f"{name} <= {quantities.short_seconds(value)}" for name, value in named if value is not None
    )


def _with(text: str, failed: int, unfinished: int) -> str:
    text += f", {failed:,} failed" if failed else ""
    return text + (f", {unfinished:,} unfinished" if unfinished else "")
