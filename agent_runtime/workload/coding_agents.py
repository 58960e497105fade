"""Coding agents drawn from published distributions.

Sources: tool gaps, appends and outputs from TraceLab (arXiv 2606.30560: 43 developers, 357,161
calls); calls a session, first prompts, shared trunks and compaction from kv-cache-tester's 739
Claude Code sessions. What neither gives, such as the share of turns that start sub-agents, is
assumed and marked so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_runtime.workload.block_id_runs import BlockIdRun, joined
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from scheduler.ids import SessionId

SCOPE_SIZE = 1 << 32
"""Global block ids are a scope's number times this, plus a position or a count."""

BLOCK_SIZE_TOKENS = 64
MINUTE_S = 60
HARNESSES = ((12_597, 2_208), (10_837, 2_337), (9_292, 2_696), (10_971, 3_767))
"""``(tools, system)`` tokens of the harnesses; sizes of common Claude Code releases."""

SUB_AGENT_TRUNKS = (8_300, 8_700)
"""Tools and system prompt of two types of sub-agent, tokens."""


@dataclass(frozen=True, slots=True)
class CodingAgents:
    """The distributions. Lognormals are ``(median, sigma)``; all lengths in tokens.

    Attributes:
        calls: Calls a session, p50 46 and p90 155 (kv-cache-tester).
        first_prompt: What the user asks, after the trunk; starts of p50 ~25k (kv-cache-tester).
        append: Tool results and user text a turn, p50 870 (TraceLab).
        large_append_share, large_append_least, large_append_shape: Pareto tail of appends.
        output: p50 220, p90 ~900 (both).
        gap_shares, gap_bounds_s: Tool gaps, log-uniform inside each class (TraceLab: 61 % under
            1 s, 27 % to 10 s, 8 % to 1 min, 4 % longer; the outer bounds are assumed).
        compact_at, summary: Context at which history is replaced by trunk and summary.
        sub_agent_share: Turns that start one to three sub-agents (assumed).
        sub_agent_calls: Mean calls of one (kv-cache-tester: 6 to 27 tools each).
        sub_agent_append: Median of what it reads a turn.
    """

    calls: tuple[float, float] = (46, 0.95)
    first_prompt: tuple[float, float] = (9_500, 0.8)
    append: tuple[float, float] = (870, 0.8)
    large_append_share: float = 0.03
    large_append_least: float = 10_000
    large_append_shape: float = 2.0
    output: tuple[float, float] = (220, 1.1)
    gap_shares: tuple[float, ...] = (0.61, 0.27, 0.08, 0.04)
    gap_bounds_s: tuple[float, ...] = (0.05, 1, 10, 60, 600)
    compact_at: int = 200_000
    summary: tuple[float, float] = (12_000, 0.5)
    sub_agent_share: float = 0.02
    sub_agent_calls: float = 8
    sub_agent_append: float = 2_500

    def __post_init__(self) -> None:
        if len(self.gap_bounds_s) != len(self.gap_shares) + 1:
            raise ValueError("gap_bounds_s has one entry more than gap_shares")


def coding_agent_sessions(num_sessions: int, seed: int, max_gap_s: float | None = None) -> Workload:
    """Return ``num_sessions`` generated sessions.

    Args:
        num_sessions: >= 1.
        seed: Session ``i`` depends on the seed and ``i`` alone, so fewer sessions are the first
            ones of more.
        max_gap_s: Cut longer tool gaps to this.
    """
    sessions = tuple(
        _SessionWriter(CodingAgents(), seed, index, max_gap_s).session()
        for index in range(num_sessions)
    )
    return Workload("coding-agents", BLOCK_SIZE_TOKENS, sessions, (_statistics(sessions),))


class _Context:
    """A growing prompt: a shared trunk, then blocks of the session's own.

    Invariant: ids from ``_own_first`` on belong to this context's current history alone.
    """

    __slots__ = ("_own_first", "_trunk", "num_tokens")

    def __init__(self, trunk_scope: int, trunk_tokens: int, own_first: int) -> None:
        self._trunk = (trunk_scope * SCOPE_SIZE, trunk_tokens // BLOCK_SIZE_TOKENS)
        self._own_first = own_first
        self.num_tokens = trunk_tokens

    def replace_history(self, trunk_tokens: int, own_first: int) -> None:
        """Forget everything after the trunk."""
        self.num_tokens, self._own_first = trunk_tokens, own_first

    def next_free_id(self, num_tokens: int) -> int:
        """Return the first id that a context of ``num_tokens`` does not use."""
        return self._own_first + max(0, num_tokens // BLOCK_SIZE_TOKENS - self._trunk[1])

    def runs(self, num_tokens: int) -> tuple[BlockIdRun, ...]:
        """Return the ids of the full blocks of the first ``num_tokens``."""
        trunk_first, num_trunk = self._trunk
        num_own = num_tokens // BLOCK_SIZE_TOKENS - num_trunk
        trunk = (trunk_first, trunk_first + num_trunk - 1)
        return joined(
            (trunk, (self._own_first, self._own_first + num_own - 1)) if num_own else (trunk,)
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

    def session(self) -> SessionScript:
        """Draw the session."""
        agents, rng = self._agents, self._rng
        popularity = 1 / np.arange(1, len(HARNESSES) + 1)
        harness = int(rng.choice(len(HARNESSES), p=popularity / popularity.sum()))
        trunk_tokens = sum(HARNESSES[harness])
        context = _Context(1 + harness, trunk_tokens, self._free_id)
        context.num_tokens += self._draw(agents.first_prompt, 200, 40_000)
        turns = []
        for number in range(self._draw(agents.calls, 3, 400)):
            if number:
                self._grow(context, trunk_tokens)
            turn = self._turn(context, gap_s=self._gap_s() if number else 0.0)
            turns.append(self._with_children(turn))
        return SessionScript(SessionId(self._name), tuple(turns))

    def _grow(self, context: _Context, trunk_tokens: int) -> None:
        """Append what the tools returned, or compact a context that became too long."""
        agents = self._agents
        if context.num_tokens > agents.compact_at:
            context.replace_history(trunk_tokens, self._free_id)
            context.num_tokens += self._draw(agents.summary, 1_000, 20_000)
        elif self._rng.random() < agents.large_append_share:
            tail = 1 + self._rng.pareto(agents.large_append_shape)
            context.num_tokens += min(int(agents.large_append_least * tail), 50_000)
        else:
            context.num_tokens += self._draw(agents.append, 1, 9_999)

    def _turn(self, context: _Context, gap_s: float) -> ScriptedTurn:
        """Make a call on the context; its output becomes part of it."""
        isl = context.num_tokens
        osl = self._draw(self._agents.output, 1, 8_000)
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
        context = _Context(1 + len(HARNESSES) + kind, SUB_AGENT_TRUNKS[kind], self._free_id)
        context.num_tokens += self._draw(agents.first_prompt, 200, 10_000)
        turns = []
        for number in range(min(int(rng.geometric(1 / agents.sub_agent_calls)), 40)):
            if number:
                context.num_tokens += self._draw((agents.sub_agent_append, 1.0), 1, 20_000)
            turns.append(self._turn(context, gap_s=self._gap_s() if number else 0.0))
        self._num_children += 1
        name = f"{self._name}/sub-{self._num_children}"
        return SessionScript(SessionId(name), tuple(turns), start_delay_s=0.1)

    def _draw(self, lognormal: tuple[float, float], least: int, most: int) -> int:
        median, sigma = lognormal
        value = float(self._rng.lognormal(np.log(median), sigma))
        return min(max(round(value), least), most)

    def _gap_s(self) -> float:
        agents = self._agents
        kind = int(self._rng.choice(len(agents.gap_shares), p=agents.gap_shares))
        low, high = np.log(agents.gap_bounds_s[kind]), np.log(agents.gap_bounds_s[kind + 1])
        return min(float(np.exp(self._rng.uniform(low, high))), self._max_gap_s)


def _statistics(sessions: tuple[SessionScript, ...]) -> str:
    """Return a line that sets what was drawn beside what was published."""
    turns = [turn for session in sessions for turn in session.turns]
    contexts = np.array([turn.isl_tokens for turn in turns])
    outputs = np.array([turn.osl_tokens for turn in turns])
    calls = np.array([len(session.turns) for session in sessions])
    gaps = np.array([turn.gap_s for session in sessions for turn in session.turns[1:]] or [0.0])
    num_children = sum(len(turn.children) for turn in turns)
    return (
        f"generated (published): context mean {contexts.mean() / 1000:.0f}k (122k), calls a "
        f"session p50 {np.median(calls):.0f} (46), output p50 {np.median(outputs):.0f} (214-252), "
        f"tool gaps under 1 s {(gaps < 1).mean():.0%} (61 %), over 1 min "
        f"{(gaps > MINUTE_S).mean():.0%} (4 %); {num_children} sub-agents."
    )
