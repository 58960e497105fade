"""The generator: what was published, the same every time, and well formed."""

import numpy as np
import pytest

from agent_runtime.workload.block_id_runs import num_blocks
from agent_runtime.workload.coding_agents import coding_agent_sessions
from agent_runtime.workload.session_script import SessionScript


def agents_of(script: SessionScript) -> list[SessionScript]:
    children = [child for turn in script.turns for child in turn.children]
    return [script, *(agent for child in children for agent in agents_of(child))]


@pytest.fixture(scope="module")
def sessions() -> tuple[SessionScript, ...]:
    return coding_agent_sessions(256, seed=1).sessions


def test_the_same_seed_gives_the_same_sessions_and_another_seed_others() -> None:
    assert coding_agent_sessions(5, seed=3) == coding_agent_sessions(5, seed=3)
    assert coding_agent_sessions(5, seed=3) != coding_agent_sessions(5, seed=4)


def test_fewer_sessions_are_the_first_ones_of_more() -> None:
    few, many = coding_agent_sessions(3, seed=0), coding_agent_sessions(9, seed=0)
    assert many.sessions[:3] == few.sessions


@pytest.mark.parametrize("seed", range(3))
def test_contexts_average_100k_tokens_and_stay_within_what_the_model_is_trained_for(
    seed: int,
) -> None:
    sessions = coding_agent_sessions(256, seed).sessions
    contexts = [turn.isl_tokens for script in sessions for turn in script.turns]
    assert 90_000 < np.mean(contexts) < 110_000
    assert max(script.peak_context_tokens() for script in sessions) <= 262_144


def test_what_is_drawn_is_what_was_published(sessions: tuple[SessionScript, ...]) -> None:
    gaps = np.array([turn.gap_s for script in sessions for turn in script.turns[1:]])
    shares = np.histogram(gaps, [0, 1, 10, 60, 601])[0] / len(gaps)
    assert shares == pytest.approx([0.61, 0.27, 0.08, 0.04], abs=0.02)
    outputs = [turn.osl_tokens for script in sessions for turn in script.turns]
    assert np.median(outputs) == pytest.approx(220, rel=0.1)
    assert 35 < np.median([len(script.turns) for script in sessions]) < 60
    assert any(turn.children for script in sessions for turn in script.turns)


def test_gaps_can_be_cut() -> None:
    sessions = coding_agent_sessions(8, seed=0, max_gap_s=5.0).sessions
    assert max(turn.gap_s for script in sessions for turn in script.turns) == 5.0


def test_equal_ids_are_equal_prefixes_everywhere(sessions: tuple[SessionScript, ...]) -> None:
    before: dict[int, tuple[int | None, int]] = {}
    for script in sessions[:24]:
        for turn in (turn for agent in agents_of(script) for turn in agent.turns):
            previous, position = None, 0
            for first, last in turn.block_id_runs:
                for block in (first, last) if first < last else (first,):
                    at = position + block - first
                    expected = previous if block == first else block - 1
                    assert before.setdefault(block, (expected, at)) == (expected, at)
                previous, position = last, position + last - first + 1


def test_every_full_block_has_an_id(sessions: tuple[SessionScript, ...]) -> None:
    for script in sessions[:64]:
        for turn in (turn for agent in agents_of(script) for turn in agent.turns):
            assert num_blocks(turn.block_id_runs) == (turn.isl_tokens + turn.osl_tokens) // 64
