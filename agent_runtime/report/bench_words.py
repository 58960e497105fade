"""What a comparison says in sentences: who is best, on what, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterator

from agent_runtime.comparison.cell import Bench
from agent_runtime.comparison.outcome import Outcome
from agent_runtime.comparison.statistics import Estimate, verdict

JUDGED = (("jct_mean_s", "mean JCT"), ("slowdown_p99", "p99 slowdown"))
STEADY_GENERATIONS = 3
"""A run in which fewer times the sessions come that are alive at once is mostly its two ends."""


def verdict_lines(outcome: Outcome, load: float) -> Iterator[str]:
    """Yield how the baseline stands against the best of its rivals."""
    for measure, name in JUDGED:
        found = verdict(outcome.results, outcome.baseline, load, measure)
        if found is not None:
            yield (
                f"load {load:g}: best rival on {name}: {found.rival}; {found.policy} "
                f"{ratio_words(found.ratio)}"
            )


def ratio_words(ratio: Estimate) -> str:
    """Write a ratio with its interval, if it has one."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.mean:.2f}x"
    return f"{ratio.mean:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def facts(bench: Bench) -> tuple[str, ...]:
    """Return what ran on what, and what load means there."""
    capacity, workload = bench.capacity, bench.workload
    host = bench.host_bytes_per_chip
    return (
        bench.deployment.describe()
        + (f", {host / 1e9:g} GB of host memory a chip" if host else ""),
        (
            f"{_num_sessions(bench)} sessions a run, drawn from {workload.name}; alone on the rack "
            f"one takes {capacity.alone_s:,.0f} s on average"
        ),
        (
            f"load 1 is {3600 * capacity.sessions_per_s:.3g} sessions an hour: compute "
            f"{100 * capacity.compute_share:.0f} %, HBM {100 * capacity.room_share:.0f} % used, KV "
            f"kept through {100 * capacity.held_share:.0f} % of the token-seconds of gaps"
        ),
        *workload.report_notes(),
    )


def cautions(outcome: Outcome) -> list[str]:
    """Return why the numbers may mean less than they seem to."""
    bench, found = outcome.bench, []
    loads = sorted({cell.load for cell in outcome.cells})
    alive = [load * bench.capacity.sessions_per_s * bench.capacity.alone_s for load in loads]
    short = [
        load
        for load, num in zip(loads, alive, strict=True)
        if _num_sessions(bench) < STEADY_GENERATIONS * num
    ]
    if short:
        found.append(
            f"At load {', '.join(f'{load:g}' for load in short)} a run is short: of its "
            f"{_num_sessions(bench)} sessions about {max(alive):.0f} would be alive at once if it "
            "went on for ever, so it is mostly ramp. A larger --num-sessions, or fewer --replicas, "
            "makes it steadier."
        )
    if outcome.num_missing:
        found.append(
            f"{outcome.num_missing} of {len(outcome.cells)} runs have no result: means are over "
            "the seeds there are, ratios over the seeds that both have."
        )
    if len({cell.seed for cell in outcome.cells}) == 1:
        found.append("One seed: there are no intervals, and luck is not told from skill.")
    failed = sum(result.failed_sessions for result in outcome.results)
    if failed:
        found.append(
            f"{failed} sessions failed over all runs: their contexts are longer than the "
            f"{bench.deployment.kv_tokens:,} tokens that a replica holds. They count as not good."
        )
    return found


def _num_sessions(bench: Bench) -> int:
    return bench.num_sessions or len(bench.workload.sessions)
