"""AgentX's replay rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.errors import ConfigError
from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.agentx import MAX_GAP_S, agentx_replay
from agent_runtime.workload.coding_agents import coding_agent_sessions
from agent_runtime.workload.session_script import SessionScript
from scheduler.decision import Decision
from scheduler.events import SessionClosed, TurnArrived, TurnEnded
from tests.engines import deployment
from tests.scripts import growing_session, workload


def block_ids(script: SessionScript) -> set[int]:
    ids = set()
    for turn in script.turns:
        ids |= {i for first, last in turn.block_id_runs for i in range(first, last + 1)}
        for child in turn.children:
            ids |= block_ids(child)
    return ids


@given(st.integers(0, 1000), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_lanes_begin_in_their_middle_and_those_who_follow_at_their_beginning(
    seed: int, num_lanes: int
) -> None:
    recorded = coding_agent_sessions(4, seed=2)
    replayed = agentx_replay(recorded, num_lanes=num_lanes, seed=seed)
    assert replayed == agentx_replay(recorded, num_lanes=num_lanes, seed=seed)
    assert len(replayed.sessions) == max(4, num_lanes)
    for number, trajectory in enumerate(replayed.sessions):
        script = recorded.sessions[number % 4]
        num_behind = len(script.turns) - len(trajectory.turns)
        if number < num_lanes:
            assert 0.25 * len(script.turns) - 1 < num_behind <= 0.75 * len(script.turns)
            assert trajectory.turns[0].gap_s == 0
        else:
            assert num_behind == 0
        kept = script.turns[num_behind:]
        assert [t.isl_tokens for t in trajectory.turns] == [t.isl_tokens for t in kept]
        assert [t.gap_s for t in trajectory.turns[1:]] == [
            min(t.gap_s, MAX_GAP_S) for t in kept[1:]
        ]


@pytest.mark.parametrize("num_lanes", [None, 2, 9])
def test_trajectories_share_neither_names_nor_blocks(num_lanes: int | None) -> None:
    recorded = coding_agent_sessions(4, seed=2)
    replayed = agentx_replay(recorded, num_lanes=num_lanes, seed=1)
    seen: set[int] = set()
    names: set[str] = set()
    for number, trajectory in enumerate(replayed.sessions):
        script = recorded.sessions[number % 4]
        kept = script.turns[len(script.turns) - len(trajectory.turns) :]
        ids = block_ids(trajectory)
        assert len(ids) == len(block_ids(replace(script, turns=kept))), "what it shares with itself"
        assert not ids & seen
        seen |= ids
        assert not names & set(agent_names(trajectory))
        names |= set(agent_names(trajectory))


def agent_names(script: SessionScript) -> list[str]:
    children = [child for turn in script.turns for child in turn.children]
    return [script.session_id, *(name for child in children for name in agent_names(child))]


def test_requests_that_come_at_set_times_are_no_trajectories() -> None:
    timed = replace(workload(growing_session("one", 0)), arrives_s=(0.0,))
    with pytest.raises(ConfigError, match=r"--replay agentx: test holds requests .* set times"):
        agentx_replay(timed, num_lanes=1, seed=0)


def decisions_of(options: SimulationOptions, *scripts: SessionScript) -> list[Decision]:
    decisions: list[Decision] = []
    plan = deployment(num_replicas=2)
    RackSimulation(workload(*scripts), plan, options, on_decision=decisions.append).run()
    return decisions


def test_so_many_sessions_live_at_a_time_and_the_next_starts_when_one_ends() -> None:
    scripts = [growing_session(f"s{number}", number, num_turns=3) for number in range(7)]
    options = SimulationOptions(concurrency=2, start_window_s=0)
    live: set[str] = set()
    most, ended = 0, 0
    for decision in decisions_of(options, *scripts):
        match decision.event:
            case TurnArrived(session_id=session):
                live.add(session)
            case SessionClosed(session_id=session):
                live.discard(session)
                ended += 1
            case _:
                pass
        most = max(most, len(live))
    assert (most, ended) == (2, 7)


def test_when_all_idle_the_next_requests_come_sooner_together() -> None:
    one = growing_session("one", 0, num_turns=2, gap_s=100.0)
    other = growing_session("other", 1, num_turns=2, gap_s=130.0)
    whole, capped = (
        [
            decision.now_s
            for decision in decisions_of(
                SimulationOptions(start_window_s=0, max_idle_s=max_idle_s), one, other
            )
            if isinstance(decision.event, TurnArrived)
        ]
        for max_idle_s in (float("inf"), 10.0)
    )
    assert capped[:2] == whole[:2]
    assert whole[2] > 100
    assert 10 < capped[2] < 20
    assert capped[3] - capped[2] < whole[3] - whole[2] == pytest.approx(30, abs=5)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.floats(0, 200)), min_size=1, max_size=5),
    st.sampled_from([0.0, 10.0]),
    st.sampled_from([0.0, 40e9]),
)
@settings(max_examples=25, deadline=None)
def test_a_turn_that_comes_sooner_is_sent_sooner_and_nobody_idles_for_longer(
    shapes: list[tuple[int, float]], max_idle_s: float, host_bytes: float
) -> None:
    child = growing_session("child", 50, num_turns=2, gap_s=90.0, start_delay_s=70.0)
    scripts = [
        growing_session(
            f"s{number}",
            number,
            num_turns=turns,
            gap_s=gap_s,
            children={0: (child,)} if not number else {},
        )
        for number, (turns, gap_s) in enumerate(shapes)
    ]
    options = SimulationOptions(
        start_window_s=100, max_idle_s=max_idle_s, host_bytes_per_chip=host_bytes
    )
    decisions: list[Decision] = []
    run = RackSimulation(
        workload(*scripts), deployment(num_replicas=2), options, on_decision=decisions.append
    )
    run.run()
    assert run.log.num_turns == sum(script.num_turns() for script in scripts)
    assert all(ttft_s > 0 for ttft_s in run.log.ttft_s)
    assert all(jct_s > 0 for jct_s in run.log.jct_s)
    num_active, idle_since_s = 0, 0.0
    for decision in decisions:
        assert decision.now_s >= idle_since_s
        match decision.event:
            case TurnArrived():
                if not num_active:
                    assert decision.now_s - idle_since_s <= max_idle_s + 1e-6
                num_active += 1
            case TurnEnded():
                num_active -= 1
                idle_since_s = decision.now_s
            case _:
                pass


def test_the_cap_on_idling_shortens_sessions_and_nothing_else() -> None:
    script = growing_session("one", 0, num_turns=3, gap_s=100.0)
    runs = []
    for max_idle_s in (float("inf"), 10.0):
        options = SimulationOptions(start_window_s=0, max_idle_s=max_idle_s)
        run = RackSimulation(workload(script), deployment(num_replicas=1), options)
        run.run()
        runs.append(run)
    whole, capped = (run.log for run in runs)
    assert list(capped.ttft_s) == pytest.approx(list(whole.ttft_s))
    assert list(capped.slowdown) == pytest.approx(list(whole.slowdown))
    assert whole.jct_s[0] - capped.jct_s[0] == pytest.approx(2 * 90, abs=0.1)
