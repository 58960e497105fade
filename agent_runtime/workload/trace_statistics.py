"""What a workload is like: sizes, gaps, and what caches could find in it.

Everything here is told from scripts alone. They say how long gaps are and not how long calls take,
so time is the time of gaps: a KV prefix is idle from the end of a turn to the beginning of the
next, and a time to live says how long it is kept then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from agent_runtime.workload.block_id_runs import common_prefix
from agent_runtime.workload.context_growth import ContextGrowth, context_growth
from agent_runtime.workload.prefix_hits import infinite_cache_hit_ratio, turns_of
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload

TTLS_S = (5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0)
GAP_CLASSES_S = (0.0, 1.0, 10.0, 60.0, float("inf"))
HOUR_S = 3_600.0
GROWTH_TURNS = (1, 2, 5, 10, 20, 50, 100, 200, 500)

FloatArray = NDArray[np.float64]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Spread(_Frozen):
    """A distribution; all None when there is nothing to tell of."""

    mean: float | None
    p10: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: FloatArray) -> Spread:
        """Summarise ``values`` [n]; percentiles are linearly interpolated."""
        if not values.size:
            return cls(mean=None, p10=None, p50=None, p90=None, p99=None, max=None)
        p10, p50, p90, p99 = (float(q) for q in np.percentile(values, (10, 50, 90, 99)))
        mean, most = float(values.mean()), float(values.max())
        return cls(mean=mean, p10=p10, p50=p50, p90=p90, p99=p99, max=most)


class TtlCeiling(_Frozen):
    """What keeping each session's KV for so long after each turn gives at best.

    Attributes:
        ttl_s: How long it is kept; None for ever.
        token_hit_ratio: Share of prompt tokens found, token weighted, each session for itself.
        prefill_amplification: Tokens computed over those computed if all KV were kept.
        gaps_covered_ratio: Share of gaps that are no longer.
        idle_token_hours: KV tokens kept while nobody uses them, times how long.
    """

    ttl_s: float | None
    token_hit_ratio: float
    prefill_amplification: float
    gaps_covered_ratio: float
    idle_token_hours: float


class GrowthPoint(_Frozen):
    """How long prompts are at one turn, over the sessions that get so far."""

    turn: int
    sessions: int
    p10_tokens: float
    p50_tokens: float
    p90_tokens: float


class TraceStatistics(_Frozen):
    """The stable JSON of ``panjiu trace describe``; documented in docs/workloads.md.

    Attributes:
        sessions, turns, sub_agents: How many; turns include sub-agents'.
        calls_per_session: Of top-level sessions, their own turns.
        isl_tokens, osl_tokens: Of all turns.
        appended_tokens: What a prompt adds to the context before it, outputs aside.
        peak_context_tokens: Of top-level sessions and their sub-agents.
        context_growth: Prompts of top-level sessions at some turns.
        gap_s: Between an agent's turns.
        gap_shares: Of gaps below 1 s, 10 s, 60 s, and longer.
        compactions: Turns whose prompt is shorter than the one before it.
        input_output_ratio: Prompt tokens over output tokens.
        ttl_ceilings: By time to live, for ever last.
        shared_hit_ratio: Share of prompt tokens that a cache without end, common to all sessions,
            would find; sessions one after the other.
    """

    name: str
    block_size_tokens: int
    sessions: int
    turns: int
    sub_agents: int
    calls_per_session: Spread
    isl_tokens: Spread
    osl_tokens: Spread
    appended_tokens: Spread
    peak_context_tokens: Spread
    context_growth: tuple[GrowthPoint, ...]
    gap_s: Spread
    gap_shares: tuple[float, float, float, float]
    compactions: int
    input_output_ratio: float
    ttl_ceilings: tuple[TtlCeiling, ...]
    shared_hit_ratio: float


@dataclass(frozen=True, slots=True)
class TurnColumns:
    """All turns that follow another one of the same agent, a row each.

    Attributes:
        gap_s: Before it.
        isl_tokens: Its prompt.
        kept_tokens: Of it, what the turn before left behind.
        context_tokens: Prompt and output of the turn before: what lay idle in the gap.
        appended_tokens: What it adds to that; negative where history was replaced.
    """

    gap_s: FloatArray
    isl_tokens: FloatArray
    kept_tokens: FloatArray
    context_tokens: FloatArray
    appended_tokens: FloatArray


def describe(workload: Workload) -> TraceStatistics:
    """Return the statistics of a workload; O(runs)."""
    sessions, block = workload.sessions, workload.block_size_tokens
    turns = list(turns_of(sessions))
    isl = np.array([turn.isl_tokens for turn in turns], dtype=np.float64)
    osl = np.array([turn.osl_tokens for turn in turns], dtype=np.float64)
    columns = following_turns(sessions, block)
    peaks = np.array([script.peak_context_tokens() for script in sessions], dtype=np.float64)
    calls = np.array([len(script.turns) for script in sessions], dtype=np.float64)
    return TraceStatistics(
        name=workload.name,
        block_size_tokens=block,
        sessions=len(sessions),
        turns=len(turns),
        sub_agents=sum(1 for _ in agents_of(sessions)) - len(sessions),
        calls_per_session=Spread.of(calls),
        isl_tokens=Spread.of(isl),
        osl_tokens=Spread.of(osl),
        appended_tokens=Spread.of(columns.appended_tokens[columns.appended_tokens >= 0]),
        peak_context_tokens=Spread.of(peaks),
        context_growth=tuple(_growth_points(context_growth(sessions))),
        gap_s=Spread.of(columns.gap_s),
        gap_shares=gap_shares(columns.gap_s),
        compactions=int((columns.appended_tokens < 0).sum()),
        input_output_ratio=float(isl.sum() / osl.sum()) if turns else 0.0,
        ttl_ceilings=tuple(ttl_ceilings(columns, float(isl.sum()))),
        shared_hit_ratio=infinite_cache_hit_ratio(sessions, block),
    )


def _growth_points(growth: ContextGrowth) -> Iterator[GrowthPoint]:
    for turn in GROWTH_TURNS:
        if turn <= growth.turn.size:
            row = turn - 1
            yield GrowthPoint(
                turn=turn,
                sessions=int(growth.num_sessions[row]),
                p10_tokens=float(growth.p10_tokens[row]),
                p50_tokens=float(growth.p50_tokens[row]),
                p90_tokens=float(growth.p90_tokens[row]),
            )


def agents_of(sessions: Iterable[SessionScript]) -> Iterator[SessionScript]:
    """Yield every session and sub-agent."""
    for session in sessions:
        yield session
        for turn in session.turns:
            yield from agents_of(turn.children)


def following_turns(sessions: Iterable[SessionScript], block_size_tokens: int) -> TurnColumns:
    """Return the turns that follow another one, of all agents."""
    rows = [
        _row(before, after, block_size_tokens)
        for agent in agents_of(sessions)
        for before, after in zip(agent.turns, agent.turns[1:], strict=False)
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    return TurnColumns(*columns)


def ttl_ceilings(columns: TurnColumns, prompt_tokens: float) -> Iterator[TtlCeiling]:
    """Yield a ceiling for every time to live, for ever last.

    Args:
        columns: The turns that follow another one.
        prompt_tokens: Of all turns, first ones too.
    """
    computed_at_least = prompt_tokens - float(columns.kept_tokens.sum())
    for ttl_s in (*TTLS_S, None):
        limit_s = float("inf") if ttl_s is None else ttl_s
        covered = columns.gap_s <= limit_s
        found = float(columns.kept_tokens[covered].sum())
        idle_s = np.minimum(columns.gap_s, limit_s)
        yield TtlCeiling(
            ttl_s=ttl_s,
            token_hit_ratio=found / prompt_tokens if prompt_tokens else 0.0,
            prefill_amplification=(prompt_tokens - found) / max(1.0, computed_at_least),
            gaps_covered_ratio=float(covered.mean()) if covered.size else 0.0,
            idle_token_hours=float((columns.context_tokens * idle_s).sum()) / HOUR_S,
        )


def gap_shares(gap_s: FloatArray) -> tuple[float, float, float, float]:
    """Return the shares of gaps below 1 s, 10 s, 60 s, and longer."""
    counts = np.histogram(gap_s, GAP_CLASSES_S)[0] / max(1, gap_s.size)
    first, second, third, fourth = (float(share) for share in counts)
    return first, second, third, fourth


def _row(before: ScriptedTurn, after: ScriptedTurn, block: int) -> tuple[float, ...]:
    most = (after.isl_tokens - 1) // block
    context = before.isl_tokens + before.osl_tokens
    left_behind = (context - 1) // block
    kept = common_prefix(before.block_id_runs, after.block_id_runs)
    grown = after.isl_tokens - before.isl_tokens
    appended = grown if grown < 0 else max(0, grown - before.osl_tokens)
    return after.gap_s, after.isl_tokens, min(kept, most, left_behind) * block, context, appended
