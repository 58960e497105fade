"""Long-context coding agents by the parameters of AIPerf's generator.

Facts from AIPerf 0.13's manifest of 1,000 sessions of at most 200k tokens (Apache-2.0): a prefix
of 32,000 tokens that all share, 10,000 that a hundred groups share (Zipf 0.6), a session's own
beginning, growth and pauses as below, and an end that grows likelier with the context. Not taken
over: sessions that restart, three in ten at the beginning of a run, and go on as a second one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_runtime.workload.distributions import LogNormal, zipf_shares
from agent_runtime.workload.growing_context import SCOPE_SIZE, GrowingContext, scope_run
from agent_runtime.workload.prefix_hits import infinite_cache_hit_ratio
from agent_runtime.workload.published_figure import PublishedFigure
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from scheduler.ids import SessionId

BLOCK_SIZE_TOKENS = 64
SOURCE = "AIPerf 0.13"


@dataclass(frozen=True, slots=True)
class AiperfAgents:
    """The distributions; all lengths in tokens.

    Attributes:
        shared_tokens: All sessions begin with them.
        group_tokens, num_groups, popularity: A group's sessions go on with them.
        first_prompt: Median 5k, mean 15k, most 50k.
        append: A turn's new tokens: median 4k, mean 6k, most 50k.
        output: Median 800, mean 1,000.
        human_share, tool_gap, human_gap: 70 % tools of median 2 s and mean 5 s, 30 % people of
            median 15 s and mean 30 s.
        end: Probability that a session ends with a turn, half as much again at the full context.
        most_tokens: No context is longer.
    """

    shared_tokens: int = 32_000
    group_tokens: int = 10_000
    num_groups: int = 100
    popularity: float = 0.6
    first_prompt: LogNormal = LogNormal.of_mean(5_000, 15_000)
    append: LogNormal = LogNormal.of_mean(4_000, 6_000)
    output: LogNormal = LogNormal.of_mean(800, 1_000)
    human_share: float = 0.3
    tool_gap: LogNormal = LogNormal.of_mean(2, 5)
    human_gap: LogNormal = LogNormal.of_mean(15, 30)
    end: float = 0.05
    most_tokens: int = 200_000


def aiperf_agent_sessions(num_sessions: int, seed: int, max_gap_s: float | None = None) -> Workload:
    """Return ``num_sessions`` generated sessions.

    Args:
        num_sessions: >= 1.
        seed: Session ``i`` depends on the seed and ``i`` alone.
        max_gap_s: Cut longer gaps to this.
    """
    agents = AiperfAgents()
    sessions = tuple(_session(agents, seed, index, max_gap_s) for index in range(num_sessions))
    return Workload("gen-200k", BLOCK_SIZE_TOKENS, sessions, figures=_figures(sessions))


def _session(agents: AiperfAgents, seed: int, index: int, max_gap_s: float | None) -> SessionScript:
    rng = np.random.default_rng([seed, index])
    most_s = float("inf") if max_gap_s is None else max_gap_s
    shares = zipf_shares(agents.num_groups, agents.popularity)
    group = int(rng.choice(agents.num_groups, p=shares))
    trunk = (
        *scope_run(1, agents.shared_tokens, BLOCK_SIZE_TOKENS),
        *scope_run(2 + group, agents.group_tokens, BLOCK_SIZE_TOKENS),
    )
    own_first = (2 + agents.num_groups + index) * SCOPE_SIZE
    trunk_tokens = agents.shared_tokens + agents.group_tokens
    context = GrowingContext(trunk, trunk_tokens, own_first, BLOCK_SIZE_TOKENS)
    context.num_tokens += agents.first_prompt.whole(rng, 1, 50_000)
    turns: list[ScriptedTurn] = []
    while True:
        isl = context.num_tokens
        osl = min(agents.output.whole(rng, 1, 20_000), agents.most_tokens - isl)
        context.num_tokens += osl
        human = rng.random() < agents.human_share
        gap_s = (agents.human_gap if human else agents.tool_gap).seconds(rng, most_s)
        runs = context.runs(context.num_tokens)
        turns.append(ScriptedTurn(isl, osl, gap_s if turns else 0.0, runs))
        context.num_tokens += agents.append.whole(rng, 4, 50_000)
        filled = context.num_tokens / agents.most_tokens
        if filled >= 1 or rng.random() < agents.end * (1 + 0.5 * filled):
            return SessionScript(SessionId(f"agent-{index:04d}"), tuple(turns))


def _figures(sessions: tuple[SessionScript, ...]) -> tuple[PublishedFigure, ...]:
    turns = [turn for session in sessions for turn in session.turns]
    appends = [
        after.isl_tokens - before.isl_tokens - before.osl_tokens
        for session in sessions
        for before, after in zip(session.turns, session.turns[1:], strict=False)
    ]
    gaps_s = [turn.gap_s for session in sessions for turn in session.turns[1:]] or [0.0]
    outputs = [turn.osl_tokens for turn in turns]
    longest = max(session.peak_context_tokens() for session in sessions)
    hits = infinite_cache_hit_ratio(sessions, BLOCK_SIZE_TOKENS)
    return (
        PublishedFigure("append p50", f"{np.median(appends or [0]):,.0f}", "4,000", SOURCE),
        PublishedFigure("append mean", f"{np.mean(appends or [0]):,.0f}", "6,000", SOURCE),
        PublishedFigure("output p50", f"{np.median(outputs):.0f}", "800", SOURCE),
        PublishedFigure("output mean", f"{np.mean(outputs):.0f}", "1,000", SOURCE),
        PublishedFigure("gap mean", f"{np.mean(gaps_s):.1f} s", "12.5 s", SOURCE),
        PublishedFigure("longest context", f"{longest:,}", "200,000", SOURCE),
        PublishedFigure("ideal hits", f"{hits:.0%}", "not given", SOURCE),
    )
