"""Every generator: well formed, the same every time, near what was published."""

from __future__ import annotations

import numpy as np
import pytest

from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.block_id_runs import common_prefix, num_blocks
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.sources import GENERATORS, load_workload
from agent_runtime.workload.trace_statistics import agents_of, describe
from tests.engines import deployment

NAMES = list(GENERATORS)


def made(name: str, num_sessions: int, seed: int = 1, max_gap_s: float | None = None) -> Workload:
    return load_workload(name, limit=num_sessions, seed=seed, max_gap_s=max_gap_s)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_and_fewer_sessions_are_the_first_of_more(name: str) -> None:
    few, many = made(name, 3), made(name, 9)
    assert few.sessions == many.sessions[:3] == made(name, 3).sessions
    assert few.sessions != made(name, 3, seed=2).sessions
    if many.arrives_s is not None:
        assert few.arrives_s == many.arrives_s[:3]
        assert list(many.arrives_s) == sorted(many.arrives_s)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_blocks_are_whole_prefixes_and_contexts_grow(name: str) -> None:
    workload = made(name, 12)
    block = workload.block_size_tokens
    agents = list(agents_of(workload.sessions))
    assert len({agent.session_id for agent in agents}) == len(agents)
    before: dict[int, tuple[int | None, int]] = {}
    for agent in agents:
        for turn in agent.turns:
            assert num_blocks(turn.block_id_runs) == (turn.isl_tokens + turn.osl_tokens) // block
            previous, position = None, 0
            for first, last in turn.block_id_runs:
                assert before.setdefault(first, (previous, position)) == (previous, position)
                previous, position = last, position + last - first + 1
        for one, other in zip(agent.turns, agent.turns[1:], strict=False):
            context = one.isl_tokens + one.osl_tokens
            if other.isl_tokens >= context:
                common = common_prefix(one.block_id_runs, other.block_id_runs)
                assert common == context // block


@pytest.mark.parametrize("name", NAMES)
def test_gaps_can_be_cut_and_the_rack_runs_it(name: str) -> None:
    workload = made(name, 4, max_gap_s=1.5)
    gaps = [turn.gap_s for agent in agents_of(workload.sessions) for turn in agent.turns]
    assert max(gaps) <= 1.5
    simulation = RackSimulation(workload, deployment(num_replicas=2), SimulationOptions())
    simulation.run()
    assert simulation.log.num_turns == sum(script.num_turns() for script in workload.sessions)


@pytest.mark.parametrize("name", NAMES)
def test_figures_say_what_was_published_and_where(name: str) -> None:
    figures = made(name, 64).figures
    assert len(figures) >= 4
    assert all(figure.generated and figure.published and figure.source for figure in figures)
    assert made(name, 8).report_notes()[-1].startswith("generated (published): ")


def test_people_are_waited_for_as_long_as_was_published() -> None:
    stats = describe(made("human-approval", 200))
    watched, alone = stats.gap_shares, describe(made("coding-agents", 200)).gap_shares
    assert 0.10 < watched[3] < 0.20, "15 % of gaps are human, most of them over a minute"
    assert alone[3] < 0.06
    assert stats.gap_s.max is not None
    assert 3600 < stats.gap_s.max <= 8 * 3600


def test_workers_begin_with_the_whole_context_of_their_planner() -> None:
    workload = made("fan-out", 20)
    shares = []
    for session in workload.sessions:
        assert len(session.turns) >= 3
        for turn in session.turns:
            context = turn.isl_tokens + turn.osl_tokens
            for child in turn.children:
                first = child.turns[0]
                shared = common_prefix(turn.block_id_runs, first.block_id_runs)
                assert shared == context // 64
                shares.append(context / first.isl_tokens)
            for one in turn.children:
                for other in turn.children:
                    common = common_prefix(one.turns[0].block_id_runs, other.turns[0].block_id_runs)
                    assert one is other or common <= context // 64
    assert 0.85 < np.mean(shares) < 1


def test_api_agents_hit_what_the_published_ones_do() -> None:
    workload = made("api-agents", 2000)
    stats = describe(workload)
    assert 0.37 < stats.shared_hit_ratio < 0.65
    assert stats.isl_tokens.mean == pytest.approx(8_596, rel=0.15)
    assert stats.osl_tokens.mean == pytest.approx(182, rel=0.1)
    assert workload.arrives_s is not None
    assert stats.turns / workload.arrives_s[-1] == pytest.approx(6.6, rel=0.1)


def test_aiperf_s_sessions_have_its_means_and_stay_within_its_cap() -> None:
    stats = describe(made("gen-200k", 400))
    assert stats.appended_tokens.mean == pytest.approx(6_000, rel=0.1)
    assert stats.osl_tokens.mean == pytest.approx(1_000, rel=0.05)
    assert stats.gap_s.mean == pytest.approx(12.5, rel=0.1)
    assert stats.peak_context_tokens.max is not None
    assert stats.peak_context_tokens.max <= 200_000
