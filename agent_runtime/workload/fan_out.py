"""Teams of agents: a planner, workers side by side that share its context, a critic at the end.

Workers and critic are sub-agents whose prompts begin with the planner's whole context so far, block
for block; what they do is theirs. Published: 10.7 calls a sub-agent (kv-cache-tester, 676 calls in
63 of them), 4.3 groups of sub-agents a session (SemiAnalysis: 1,697 in 393 traces), 91-97 % of
blocks shared in all-gather rounds (TokenDance). How many workers a round has is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent_runtime.workload.block_id_runs import clipped
from agent_runtime.workload.distributions import LogNormal, ToolGaps
from agent_runtime.workload.growing_context import SCOPE_SIZE, GrowingContext, scope_run
from agent_runtime.workload.prefix_hits import infinite_cache_hit_ratio
from agent_runtime.workload.published_figure import PublishedFigure
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from scheduler.ids import SessionId

BLOCK_SIZE_TOKENS = 64
TRUNK_TOKENS = 12_000
IDS_AN_AGENT = 1 << 20


@dataclass(frozen=True, slots=True)
class FanOut:
    """The distributions; all lengths in tokens.

    Attributes:
        task: What the user asks, after the trunk (assumed).
        rounds: Rounds of workers a session, mean 4.3 (SemiAnalysis).
        workers: Least and most workers a round (assumed).
        worker_calls: Mean calls of one, 10.7 (kv-cache-tester).
        append: Tool results a turn, p50 870 (TraceLab).
        report: What a worker tells the planner (assumed).
        output: p50 220, p90 ~900 (kv-cache-tester, TraceLab).
        gaps: Tool gaps (TraceLab).
    """

    task: LogNormal = LogNormal(8_000, 0.8)
    rounds: float = 4.3
    workers: tuple[int, int] = (2, 8)
    worker_calls: float = 10.7
    append: LogNormal = LogNormal(870, 0.8)
    report: LogNormal = LogNormal(700, 0.5)
    output: LogNormal = LogNormal(220, 1.1)
    gaps: ToolGaps = ToolGaps()


def fan_out_sessions(num_sessions: int, seed: int, max_gap_s: float | None = None) -> Workload:
    """Return ``num_sessions`` generated teams.

    Args:
        num_sessions: >= 1.
        seed: Session ``i`` depends on the seed and ``i`` alone.
        max_gap_s: Cut longer tool gaps to this.
    """
    sessions = tuple(
        _Team(FanOut(), seed, index, max_gap_s).session() for index in range(num_sessions)
    )
    return Workload("fan-out", BLOCK_SIZE_TOKENS, sessions, figures=_figures(sessions))


class _Team:
    """Draws one planner and its sub-agents from one random stream."""

    def __init__(self, agents: FanOut, seed: int, index: int, max_gap_s: float | None) -> None:
        self._agents = agents
        self._rng = np.random.default_rng([seed, index])
        self._name = f"team-{index:04d}"
        self._max_gap_s = float("inf") if max_gap_s is None else max_gap_s
        self._scope_first = (2 + index) * SCOPE_SIZE
        self._num_agents = 0

    def session(self) -> SessionScript:
        """Draw the session."""
        agents, rng = self._agents, self._rng
        trunk = scope_run(1, TRUNK_TOKENS, BLOCK_SIZE_TOKENS)
        plan = GrowingContext(trunk, TRUNK_TOKENS, self._next_ids(), BLOCK_SIZE_TOKENS)
        plan.num_tokens += agents.task.whole(rng, 200, 60_000)
        turns: list[ScriptedTurn] = []
        for _ in range(int(rng.geometric(1 / agents.rounds))):
            turn = self._turn(plan, gap_s=self._gap_s() if turns else 0.0)
            low, high = agents.workers
            workers = [
                self._sub_agent(plan, "worker") for _ in range(int(rng.integers(low, high + 1)))
            ]
            turns.append(replace(turn, children=tuple(workers)))
            plan.num_tokens += sum(agents.report.whole(rng, 20, 8_000) for _ in workers)
        turn = self._turn(plan, gap_s=self._gap_s())
        turns.append(replace(turn, children=(self._sub_agent(plan, "critic"),)))
        plan.num_tokens += agents.report.whole(rng, 20, 8_000)
        turns.append(self._turn(plan, gap_s=self._gap_s()))
        return SessionScript(SessionId(self._name), tuple(turns))

    def _sub_agent(self, plan: GrowingContext, role: str) -> SessionScript:
        """Draw an agent that begins with all that the planner knows."""
        rng = self._rng
        num_shared = plan.num_tokens // BLOCK_SIZE_TOKENS
        shared = clipped(plan.runs(plan.num_tokens), 0, num_shared)
        own_first = self._next_ids()
        context = GrowingContext(shared, plan.num_tokens, own_first, BLOCK_SIZE_TOKENS)
        turns: list[ScriptedTurn] = []
        for number in range(min(int(rng.geometric(1 / self._agents.worker_calls)), 60)):
            context.num_tokens += self._agents.append.whole(rng, 4, 20_000)
            turns.append(self._turn(context, gap_s=self._gap_s() if number else 0.0))
        name = f"{self._name}/{role}-{self._num_agents - 1}"
        return SessionScript(SessionId(name), tuple(turns), start_delay_s=0.1)

    def _turn(self, context: GrowingContext, gap_s: float) -> ScriptedTurn:
        isl = context.num_tokens
        osl = self._agents.output.whole(self._rng, 1, 8_000)
        context.num_tokens += osl
        return ScriptedTurn(isl, osl, gap_s, context.runs(context.num_tokens))

    def _next_ids(self) -> int:
        """Return the first of the ids of one more agent's own blocks."""
        self._num_agents += 1
        return self._scope_first + (self._num_agents - 1) * IDS_AN_AGENT

    def _gap_s(self) -> float:
        return self._agents.gaps.seconds(self._rng, self._max_gap_s)


def _figures(sessions: tuple[SessionScript, ...]) -> tuple[PublishedFigure, ...]:
    children = [child for s in sessions for turn in s.turns for child in turn.children]
    rounds = [sum(bool(turn.children) for turn in session.turns) - 1 for session in sessions]
    calls = np.mean([len(child.turns) for child in children])
    hits = infinite_cache_hit_ratio(sessions, BLOCK_SIZE_TOKENS)
    shared = np.mean(
        [
            turn.isl_tokens / child.turns[0].isl_tokens
            for session in sessions
            for turn in session.turns
            for child in turn.children
        ]
    )
    return (
        PublishedFigure("rounds a session", f"{np.mean(rounds):.1f}", "4.3", "SemiAnalysis"),
        PublishedFigure("calls a sub-agent", f"{calls:.1f}", "10.7", "kv-cache-tester"),
        PublishedFigure("of a worker's prompt shared", f"{shared:.0%}", "91-97 %", "TokenDance"),
        PublishedFigure("ideal hits", f"{hits:.0%}", "83-97 %", "LMCache magagent, TraceLab"),
    )
