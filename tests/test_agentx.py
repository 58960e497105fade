"""AgentX's replay rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.agentx import MAX_GAP_S, agentx_lanes
from agent_runtime.workload.coding_agents import coding_agent_sessions
from agent_runtime.workload.session_script import SessionScript
from scheduler.decision import Decision
from scheduler.events import SessionClosed, TurnArrived
from tests.engines import deployment
from tests.scripts import growing_session, workload


def block_ids(script: SessionScript) -> set[int]:
    ids = set()
    for turn in script.turns:
        ids |= {i for first, last in turn.block_id_runs for i in range(first, last + 1)}
        for child in turn.children:
            ids |= block_ids(child)
    return ids


@given(st.integers(0, 1000))
def test_lanes_begin_in_their_middle_share_nothing_and_pause_for_five_minutes_at_most(
    seed: int,
) -> None:
    recorded = coding_agent_sessions(4, seed=2)
    lanes = agentx_lanes(recorded, seed)
    assert lanes == agentx_lanes(recorded, seed)
    seen: set[int] = set()
    for script, lane in zip(recorded.sessions, lanes.sessions, strict=True):
        num_behind = len(script.turns) - len(lane.turns)
        assert 0.25 * len(script.turns) - 1 < num_behind <= 0.75 * len(script.turns)
        kept = script.turns[num_behind:]
        assert [t.isl_tokens for t in lane.turns] == [t.isl_tokens for t in kept]
        assert lane.turns[0].gap_s == 0
        assert all(turn.gap_s <= MAX_GAP_S for turn in lane.turns)
        ids = block_ids(lane)
        assert len(ids) == len(block_ids(replace(script, turns=kept)))
        assert not ids & seen
        seen |= ids


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
