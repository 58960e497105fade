"""Coding agents drawn from published distributions.

Sources: tool gaps, appends and outputs from TraceLab (arXiv 2606.30560: 43 developers, 357,161
calls); calls a session, first prompts, shared trunks and compaction from kv-cache-tester's 739
Claude Code sessions. What neither gives, such as the share of turns that start sub-agents, is
assumed and marked so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.workload.distributions import MINUTE_S, LogNormal, ToolGaps, zipf_shares
from agent_runtime.workload.growing_context import SCOPE_SIZE, GrowingContext, scope_run
from agent_runtime.workload.published_figure import PublishedFigure
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from scheduler.ids import SessionId

BLOCK_SIZE_TOKENS = 64
FloatArray = NDArray[np.float64]
HARNESSES = ((12_597, 2_208), (10_837, 2_337), (9_292, 2_696), (10_971, 3_767))
"""``(tools, system)`` tokens of the harnesses; sizes of common Claude Code releases."""

SUB_AGENT_TRUNKS = (8_300, 8_700)
"""Tools and system prompt of two types of sub-agent, tokens."""


@dataclass(frozen=True, slots=True)
class HumanPauses:
    """When a person is waited for.

    Attributes:
        calls: Calls a human turn, p50 2, p90 17, mean 6.2 (kv-cache-tester).
        pause: Seconds; p50 86 s, p90 21 min (TraceLab), p50 127 s, p90 26 min (kv-cache-tester).
        most_s: Longer ones are cut (assumed; TraceLab's p99 is 14 h).
    """

    calls: LogNormal = LogNormal(2.2, 1.45)
    pause: LogNormal = LogNormal(105, 2.02)
    most_s: float = 8 * 3600.0


@dataclass(frozen=True, slots=True)
class CodingAgents:
    """The distributions; all lengths in tokens.

    Attributes:
        calls: Calls a session, p50 46 and p90 155 (kv-cache-tester).
        first_prompt: What the user asks, after the trunk; starts of p50 ~25k (kv-cache-tester).
        append: Tool results and user text a turn, p50 870 (TraceLab).
        large_append_share, large_append_least, large_append_shape: Pareto tail of appends.
        output: p50 220, p90 ~900 (both).
        gaps: Tool gaps (TraceLab).
        human: When a person is waited for; None for agents that nobody watches.
        compact_at, summary: Context at which history is replaced by trunk and summary.
        sub_agent_share: Turns that start one to three sub-agents (assumed).
        sub_agent_calls: Mean calls of one (kv-cache-tester: 6 to 27 tools each).
        sub_agent_append: What it reads a turn.
    """

    calls: LogNormal = LogNormal(46, 0.95)
    first_prompt: LogNormal = LogNormal(9_500, 0.8)
    append: LogNormal = LogNormal(870, 0.8)
    large_append_share: float = 0.03
    large_append_least: float = 10_000
    large_append_shape: float = 2.0
    output: LogNormal = LogNormal(220, 1.1)
    gaps: ToolGaps = ToolGaps()
    human: HumanPauses | None = None
    compact_at: int = 200_000
    summary: LogNormal = LogNormal(12_000, 0.5)
    sub_agent_share: float = 0.02
    sub_agent_calls: float = 8
    sub_agent_append: LogNormal = LogNormal(2_500, 1.0)


def coding_agent_sessions(num_sessions: int, seed: int, max_gap_s: float | None = None) -> Workload:
    """Return ``num_sessions`` generated sessions of agents that nobody watches.

    Args:
        num_sessions: >= 1.
        seed: Session ``i`` depends on the seed and ``i`` alone, so fewer sessions are the first
            ones of more.
        max_gap_s: Cut longer gaps to this.
    """
    sessions = _written(CodingAgents(), num_sessions, seed, max_gap_s)
    return Workload("coding-agents", BLOCK_SIZE_TOKENS, sessions, figures=coding_figures(sessions))


def human_approval_sessions(
    num_sessions: int, seed: int, max_gap_s: float | None = None
) -> Workload:
    """Return sessions of coding agents that wait for a person every few calls.

    Args: as ``coding_agent_sessions``.
    """
    sessions = _written(CodingAgents(human=HumanPauses()), num_sessions, seed, max_gap_s)
    return Workload(
        "human-approval",
        BLOCK_SIZE_TOKENS,
        sessions,
        figures=(*coding_figures(sessions), *_pause_figures(sessions)),
    )


def _written(
    agents: CodingAgents, num_sessions: int, seed: int, max_gap_s: float | None
) -> tuple[SessionScript, ...]:
    return tuple(
        _SessionWriter(agents, seed, index, max_gap_s).session() for index in range(num_sessions)
    )


class _SessionWriter:
    """Draws one session and its sub-agents from one random stream."""

    def __init__(
        self, agents: CodingAgents, seed: int, index: int, max_gap_s: float | None
    ) -> None:
        self._agents = agents
        self._rng = np.random.default_rng([seed, index])
        self._name = f"agent-{index:04d}"
        self._max_gap_s = float("inf") if max_gap_s is None else max_gap_s
        num_shared_scopes = len(HARNESSES) + len(SUB_AGENT_TRUNKS)
        self._free_id = (1 + num_shared_scopes + index) * SCOPE_SIZE
        self._num_children = 0
        self._calls_to_pause: int | None = None

    def session(self) -> SessionScript:
        """Draw the session."""
        agents, rng = self._agents, self._rng
        harness = int(rng.choice(len(HARNESSES), p=zipf_shares(len(HARNESSES), 1.0)))
        trunk_tokens = sum(HARNESSES[harness])
        context = self._context(1 + harness, trunk_tokens)
        context.num_tokens += agents.first_prompt.whole(rng, 200, 40_000)
        turns = []
        for number in range(agents.calls.whole(rng, 3, 400)):
            if number:
                self._grow(context, trunk_tokens)
            turn = self._turn(context, gap_s=self._pause_or_gap_s() if number else 0.0)
            turns.append(self._with_children(turn))
        return SessionScript(SessionId(self._name), tuple(turns))

    def _grow(self, context: GrowingContext, trunk_tokens: int) -> None:
        """Append what the tools returned, or compact a context that became too long."""
        agents = self._agents
        if context.num_tokens > agents.compact_at:
            context.replace_history(trunk_tokens, self._free_id)
            context.num_tokens += agents.summary.whole(self._rng, 1_000, 20_000)
        elif self._rng.random() < agents.large_append_share:
            tail = 1 + self._rng.pareto(agents.large_append_shape)
            context.num_tokens += min(int(agents.large_append_least * tail), 50_000)
        else:
            context.num_tokens += agents.append.whole(self._rng, 1, 9_999)

    def _turn(self, context: GrowingContext, gap_s: float) -> ScriptedTurn:
        """Make a call on the context; its output becomes part of it."""
        isl = context.num_tokens
        osl = self._agents.output.whole(self._rng, 1, 8_000)
        context.num_tokens += osl
        self._free_id = max(self._free_id, context.next_free_id(context.num_tokens))
        return ScriptedTurn(isl, osl, gap_s, context.runs(context.num_tokens))

    def _with_children(self, turn: ScriptedTurn) -> ScriptedTurn:
        if self._rng.random() >= self._agents.sub_agent_share:
            return turn
        children = tuple(self._sub_agent() for _ in range(int(self._rng.integers(1, 4))))
        return ScriptedTurn(
            turn.isl_tokens, turn.osl_tokens, turn.gap_s, turn.block_id_runs, children
        )

    def _sub_agent(self) -> SessionScript:
        agents, rng = self._agents, self._rng
        kind = int(rng.integers(len(SUB_AGENT_TRUNKS)))
        # A parent's next turn may extend its last block run, so children start well clear of it.
        self._free_id += agents.compact_at
        context = self._context(1 + len(HARNESSES) + kind, SUB_AGENT_TRUNKS[kind])
        context.num_tokens += agents.first_prompt.whole(rng, 200, 10_000)
        turns = []
        for number in range(min(int(rng.geometric(1 / agents.sub_agent_calls)), 40)):
            if number:
                context.num_tokens += agents.sub_agent_append.whole(rng, 1, 20_000)
            turns.append(self._turn(context, gap_s=self._gap_s() if number else 0.0))
        self._num_children += 1
        name = f"{self._name}/sub-{self._num_children}"
        return SessionScript(SessionId(name), tuple(turns), start_delay_s=0.1)

    def _context(self, scope: int, trunk_tokens: int) -> GrowingContext:
        trunk = scope_run(scope, trunk_tokens, BLOCK_SIZE_TOKENS)
        return GrowingContext(trunk, trunk_tokens, self._free_id, BLOCK_SIZE_TOKENS)

    def _pause_or_gap_s(self) -> float:
        """Draw how long a person is waited for, after the last call of a human turn, or a tool."""
        human = self._agents.human
        if human is None:
            return self._gap_s()
        if self._calls_to_pause is None:
            self._calls_to_pause = human.calls.whole(self._rng, 1, 400)
        self._calls_to_pause -= 1
        if self._calls_to_pause:
            return self._gap_s()
        self._calls_to_pause = None
        return human.pause.seconds(self._rng, min(human.most_s, self._max_gap_s))

    def _gap_s(self) -> float:
        return self._agents.gaps.seconds(self._rng, self._max_gap_s)


def coding_figures(sessions: tuple[SessionScript, ...]) -> tuple[PublishedFigure, ...]:
    """Set what was drawn for coding agents beside what was published of them."""
    turns = [turn for session in sessions for turn in session.turns]
    contexts = np.array([turn.isl_tokens for turn in turns])
    outputs = np.array([turn.osl_tokens for turn in turns])
    calls = np.array([len(session.turns) for session in sessions])
    gaps_s = _gaps_s(sessions)
    under_1_s, over_1_min = (gaps_s < 1).mean(), (gaps_s > MINUTE_S).mean()
    calls_p50, calls_p90 = np.percentile(calls, (50, 90))
    kv_tester, tracelab = "kv-cache-tester", "TraceLab"
    return (
        PublishedFigure("context mean", f"{contexts.mean() / 1000:.0f}k", "122k", kv_tester),
        PublishedFigure("calls a session p50", f"{calls_p50:.0f}", "46", kv_tester),
        PublishedFigure("calls a session p90", f"{calls_p90:.0f}", "155", kv_tester),
        PublishedFigure(
            "output p50", f"{np.median(outputs):.0f}", "214-252", f"{kv_tester}, {tracelab}"
        ),
        PublishedFigure("gaps under 1 s", f"{under_1_s:.0%}", "61 % of tools", tracelab),
        PublishedFigure("gaps over 1 min", f"{over_1_min:.0%}", "4 % of tools", tracelab),
    )


def _pause_figures(sessions: tuple[SessionScript, ...]) -> tuple[PublishedFigure, ...]:
    pauses_s = _gaps_s(sessions)
    pauses_s = pauses_s[pauses_s > ToolGaps().bounds_s[-1]]
    share = len(pauses_s) / max(1, len(_gaps_s(sessions)))
    return (
        PublishedFigure(
            "gaps over 10 min", f"{share:.1%}", "2-4 %", "kv-cache-tester: p90 26 min of 15 %"
        ),
    )


def _gaps_s(sessions: tuple[SessionScript, ...]) -> FloatArray:
    gaps = [turn.gap_s for session in sessions for turn in session.turns[1:]]
    return np.array(gaps or [0.0])
