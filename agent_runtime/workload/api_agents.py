"""Agents behind an API: short prompts from popular templates, few turns, open-loop arrivals.

The regime before coding agents (Mooncake's tool-agent trace: 23,608 requests an hour, 8,596 tokens
in and 182 out on average; Bailian, ATC'25: 54-62 % ideal hits, 97 % of a business API's hits in
first turns, a tenth of the blocks is most of the reuse). How many templates there are, and how
long, is assumed so that these come out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_runtime.workload.distributions import LogNormal, ToolGaps, zipf_shares
from agent_runtime.workload.growing_context import SCOPE_SIZE, GrowingContext, scope_run
from agent_runtime.workload.prefix_hits import infinite_cache_hit_ratio
from agent_runtime.workload.published_figure import PublishedFigure
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from scheduler.ids import SessionId

BLOCK_SIZE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class ApiAgents:
    """The distributions; all lengths in tokens.

    Attributes:
        num_templates, popularity: How many, and the exponent of Zipf's law (assumed).
        template: Tools and system prompt of one (assumed).
        request: What a request adds to it (assumed; prompts come to Mooncake's mean).
        output: Mean 182 (Mooncake tool-agent).
        more_turns: Probability of another turn (assumed; most sessions have one: Bailian).
        append: What a tool returns (assumed).
        gaps: Tool gaps (TraceLab).
        arrivals_per_s: Sessions a second (Mooncake: 6.6 requests).
    """

    num_templates: int = 200
    popularity: float = 1.0
    template: LogNormal = LogNormal(3_300, 0.7)
    request: LogNormal = LogNormal(2_600, 0.9)
    output: LogNormal = LogNormal.of_mean(110, 182)
    more_turns: float = 0.25
    append: LogNormal = LogNormal(600, 0.8)
    gaps: ToolGaps = ToolGaps()
    arrivals_per_s: float = 5.0


def api_agent_sessions(num_sessions: int, seed: int, max_gap_s: float | None = None) -> Workload:
    """Return ``num_sessions`` generated sessions in the order in which they come.

    Args:
        num_sessions: >= 1.
        seed: Session ``i`` depends on the seed and ``i`` alone.
        max_gap_s: Cut longer tool gaps to this.
    """
    agents = ApiAgents()
    templates = [
        agents.template.whole(np.random.default_rng([seed, 1, number]), 500, 20_000)
        for number in range(agents.num_templates)
    ]
    drawn = [_session(agents, templates, seed, index, max_gap_s) for index in range(num_sessions)]
    sessions = tuple(script for script, _ in drawn)
    arrives_s = np.cumsum([after_s for _, after_s in drawn])
    return Workload(
        "api-agents",
        BLOCK_SIZE_TOKENS,
        sessions,
        arrives_s=tuple(arrives_s.tolist()),
        figures=_figures(sessions, float(arrives_s[-1])),
    )


def _session(
    agents: ApiAgents, templates: list[int], seed: int, index: int, max_gap_s: float | None
) -> tuple[SessionScript, float]:
    """Draw a session, and how long after the one before it comes."""
    rng = np.random.default_rng([seed, 0, index])
    after_s = float(rng.exponential(1 / agents.arrivals_per_s))
    kind = int(rng.choice(len(templates), p=zipf_shares(len(templates), agents.popularity)))
    trunk = scope_run(1 + kind, templates[kind], BLOCK_SIZE_TOKENS)
    own_first = (1 + len(templates) + index) * SCOPE_SIZE
    context = GrowingContext(trunk, templates[kind], own_first, BLOCK_SIZE_TOKENS)
    context.num_tokens += agents.request.whole(rng, 20, 60_000)
    turns: list[ScriptedTurn] = []
    most_s = float("inf") if max_gap_s is None else max_gap_s
    while True:
        isl, osl = context.num_tokens, agents.output.whole(rng, 1, 4_000)
        context.num_tokens += osl
        gap_s = agents.gaps.seconds(rng, most_s) if turns else 0.0
        turns.append(ScriptedTurn(isl, osl, gap_s, context.runs(context.num_tokens)))
        if rng.random() >= agents.more_turns:
            return SessionScript(SessionId(f"request-{index:05d}"), tuple(turns)), after_s
        context.num_tokens += agents.append.whole(rng, 4, 20_000)


def _figures(sessions: tuple[SessionScript, ...], span_s: float) -> tuple[PublishedFigure, ...]:
    turns = [turn for session in sessions for turn in session.turns]
    isl = np.mean([turn.isl_tokens for turn in turns])
    osl = np.mean([turn.osl_tokens for turn in turns])
    hits = infinite_cache_hit_ratio(sessions, BLOCK_SIZE_TOKENS)
    rate = len(turns) / span_s if span_s else 0.0
    return (
        PublishedFigure("prompt mean", f"{isl / 1000:.1f}k", "8.6k", "Mooncake tool-agent"),
        PublishedFigure("output mean", f"{osl:.0f}", "182", "Mooncake tool-agent"),
        PublishedFigure("ideal hits", f"{hits:.0%}", "37-65 %", "Mooncake, Bailian"),
        PublishedFigure("requests a second", f"{rate:.1f}", "6.6", "Mooncake tool-agent"),
    )
