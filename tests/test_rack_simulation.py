"""The discrete-event driver: closed loops, joins, hits counted right, the same bytes twice."""

import dataclasses
import itertools
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.measurement.summary import RunDetail
from agent_runtime.simulation.event_queue import EventQueue
from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.simulation.session_run import ContextChain
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.block_id_runs import joined
from agent_runtime.workload.session_script import SessionScript
from hw_model.claim import Band
from hw_model.engine.solo_turn import solo_turn_s
from hw_model.step_time import StepTimeModel
from scheduler.policies import POLICIES
from tests.engines import deployment, engine, request
from tests.scripts import BLOCK, growing_session, workload


def run(*sessions: SessionScript, policy: str = "panjiu", replicas: int = 2, **kwargs) -> RunDetail:
    ticks = itertools.count()
    return simulate(
        workload(*sessions),
        deployment("qwen3-8b", num_replicas=replicas, **kwargs),
        SimulationOptions(policy=policy),
        stopwatch=lambda: float(next(ticks)),
    )


def test_a_session_alone_on_the_rack_has_a_slowdown_of_exactly_one() -> None:
    detail = run(growing_session("a", 0, num_turns=6))
    assert detail.summary.slowdown.max == pytest.approx(1.0, abs=1e-9)
    assert detail.summary.recomputed_tokens == 0


def test_a_turn_starts_its_gap_after_the_turn_before_ended() -> None:
    short = run(growing_session("a", 0, gap_s=1.0, num_turns=5)).jct_s[0]
    long = run(growing_session("a", 0, gap_s=11.0, num_turns=5)).jct_s[0]
    assert long - short == pytest.approx(4 * 10.0)


def test_prefix_hits_are_counted_in_whole_blocks_of_what_was_computed() -> None:
    detail = run(growing_session("a", 0, num_turns=2, start=1000, append=100, output=30))
    # Turn 2 asks for 1,130 tokens; turn 1 computed 1,029: the last token it generated was not.
    assert detail.summary.prefix_hit_ratio == pytest.approx((1029 // BLOCK * BLOCK) / 2130)


def test_moving_a_session_between_replicas_recomputes_its_context() -> None:
    script = growing_session("a", 0, num_turns=2, start=1000, append=100, output=30)
    moved = run(script, policy="round_robin")
    assert moved.summary.prefix_hit_ratio == 0
    assert moved.summary.recomputed_tokens == 1029 // BLOCK * BLOCK
    assert moved.summary.slowdown.max is not None
    assert moved.summary.slowdown.max > 1


def test_a_parent_waits_for_all_its_sub_agents_and_then_for_its_gap() -> None:
    quick = growing_session("a/quick", 1, num_turns=1)
    slow = growing_session("a/slow", 2, num_turns=3, gap_s=20.0, start_delay_s=5.0)
    alone = run(growing_session("a", 0, num_turns=2, gap_s=1.0)).jct_s[0]
    child_jct_s = run(growing_session("a/slow", 2, num_turns=3, gap_s=20.0)).jct_s[0]
    parent = growing_session("a", 0, num_turns=2, gap_s=1.0, children={0: (quick, slow)})
    detail = run(parent, replicas=4)
    assert detail.summary.sessions.total == detail.summary.sessions.completed == 1
    assert detail.summary.turns == 2 + 1 + 3
    assert detail.jct_s[0] == pytest.approx(alone + child_jct_s + 5.0, rel=1e-3)


def test_a_sub_agent_of_the_last_turn_ends_before_its_session_does() -> None:
    child = growing_session("a/c", 1, num_turns=2, gap_s=50.0)
    detail = run(growing_session("a", 0, num_turns=1, children={0: (child,)}))
    assert detail.jct_s[0] > 50


def test_a_context_no_replica_holds_fails_its_session_and_says_the_limit() -> None:
    big = growing_session("big", 1, start=2_000_000)
    detail = run(growing_session("ok", 0), big)
    assert (detail.summary.sessions.completed, detail.summary.sessions.failed) == (1, 1)
    assert any("a replica holds" in note for note in detail.notes)


def test_a_refused_sub_agent_fails_its_parent_without_hanging_it() -> None:
    child = growing_session("a/c", 1, start=2_000_000)
    detail = run(growing_session("a", 0, num_turns=3, children={0: (child,)}))
    assert detail.summary.sessions.failed == 1
    assert detail.summary.turns == 3


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_finishes_every_turn(policy: str) -> None:
    sessions = [growing_session(f"s{n}", n, num_turns=5, start=3000 * (n + 1)) for n in range(9)]
    detail = run(*sessions, policy=policy, replicas=3)
    assert detail.summary.sessions.completed == 9
    assert detail.summary.turns == 45 == sum(r.turns for r in detail.replicas)
    assert 0 < detail.summary.hbm_used_ratio.mean <= detail.summary.hbm_used_ratio.max <= 1
    assert 0 < max(replica.busy_ratio for replica in detail.replicas) <= 1
    assert (detail.timeline.kv_active_ratio <= detail.timeline.kv_used_ratio).all()


def test_more_context_than_hbm_still_finishes() -> None:
    sessions = [growing_session(f"s{n}", n, num_turns=4, start=200_000) for n in range(12)]
    detail = run(*sessions, replicas=1)
    assert detail.summary.sessions.completed == 12
    assert detail.summary.hbm_used_ratio.max == pytest.approx(1.0, abs=0.01)


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "import itertools\n"
        "from agent_runtime.simulation.rack_simulation import SimulationOptions\n"
        "from agent_runtime.simulation.simulate import simulate\n"
        "from tests.engines import deployment\n"
        "from tests.scripts import growing_session, workload\n"
        "ticks = itertools.count()\n"
        "sessions = [growing_session(f's{n}', n, start=5000 * n + 900) for n in range(8)]\n"
        "detail = simulate(workload(*sessions), deployment('qwen3-8b', num_replicas=3),\n"
        "    SimulationOptions(seed=7), stopwatch=lambda: float(next(ticks)))\n"
        "print(detail.summary.model_dump_json(), detail.ttft_s.tobytes().hex())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.sampled_from([16, 64, 512]))
def test_the_solo_time_is_what_the_engine_takes(
    prompt: int, cached: int, output: int, budget: int
) -> None:
    step_time = StepTimeModel(deployment("qwen3-8b"), Band.BASE)
    core = engine(1000, max_num_batched_tokens=budget)
    hashes = list(range(prompt))
    hit_tokens = min(cached, prompt - 1) // 4 * 4
    start_s = 0.0
    if hit_tokens:
        core.add(request("warm-up", hit_tokens, 1, hashes), 0.0)
        start_s = core.advance(1e9)[-1].at_s
    core.add(request("a", prompt, output, hashes[: prompt // 4]), start_s)
    end_s = core.advance(1e9)[-1].at_s
    expected_s = solo_turn_s(
        step_time,
        num_prompt_tokens=prompt,
        num_cached_tokens=hit_tokens,
        num_output_tokens=output,
        max_num_batched_tokens=budget,
    )
    assert end_s - start_s == pytest.approx(expected_s, rel=1e-9)


runs = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 6)).map(
        lambda pair: (pair[0] * 100, pair[0] * 100 + pair[1] - 1)
    ),
    max_size=5,
).map(joined)


@given(st.lists(runs, min_size=1, max_size=5))
def test_a_chain_always_spells_out_its_runs_and_reports_what_stayed(targets: list) -> None:
    chain = ContextChain()
    for target in targets:
        before = list(chain.hashes)
        kept = chain.retarget(target)
        spelled = [block for first, last in target for block in range(first, last + 1)]
        assert chain.hashes == spelled
        assert before[:kept] == spelled[:kept]


def test_equal_times_leave_by_priority_and_then_first_in_first_out() -> None:
    queue: EventQueue[str] = EventQueue()
    for at_s, priority, item in [(1, 1, "c"), (1, 0, "a"), (0, 9, "first"), (1, 0, "b")]:
        queue.push(float(at_s), priority, item)
    assert [queue.pop()[1] for _ in range(len(queue))] == ["first", "a", "b", "c"]


def test_host_memory_gives_back_what_hbm_had_no_room_for() -> None:
    sessions = [growing_session(f"s{n}", n, num_turns=4, start=2000, gap_s=5.0) for n in range(4)]
    cramped = dataclasses.replace(deployment("qwen3-8b", num_replicas=1), kv_blocks=5000 // BLOCK)
    runs = [
        simulate(
            workload(*sessions),
            dataclasses.replace(cramped, block_size_tokens=BLOCK),
            SimulationOptions(host_bytes_per_chip=host_bytes),
            stopwatch=lambda: 0.0,
        )
        for host_bytes in (0.0, 64e9)
    ]
    alone, backed = (each.summary for each in runs)
    assert alone.recomputed_tokens > 0
    assert alone.host_loaded_tokens == 0
    assert backed.host_loaded_tokens > 0
    assert backed.recomputed_tokens < alone.recomputed_tokens / 2
    assert backed.prefix_hit_ratio > alone.prefix_hit_ratio


def test_whoever_ends_can_be_followed_by_another() -> None:
    followed = []

    def successor(ended: SessionScript, now_s: float) -> SessionScript | None:
        followed.append((ended.session_id, now_s))
        number = len(followed)
        return growing_session(f"later {number}", 10 + number, num_turns=2) if number < 3 else None

    plan = deployment("qwen3-8b", num_replicas=1, block_size_tokens=BLOCK)
    first = workload(growing_session("first", 0, num_turns=3))
    simulation = RackSimulation(first, plan, SimulationOptions(), successor)
    simulation.run()
    assert [session_id for session_id, _ in followed] == ["first", "later 1", "later 2"]
    assert len(simulation.log.jct_s) == 3
    assert followed[-1][1] == simulation.now_s
