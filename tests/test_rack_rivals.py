"""Residency and admission by others, rack-wide: MORI, Progress-TTL and SAGA, worked by hand."""

import itertools
from math import e, exp, log

import pytest

from agent_runtime.simulation.rack_simulation import SimulationOptions
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.session_script import SessionScript
from scheduler.commands import Pull, Release
from scheduler.events import GapCause, GapHint
from scheduler.ids import ReplicaId
from scheduler.policies import POLICIES
from scheduler.programs.idleness import Idleness
from scheduler.programs.log_normal import LogNormal
from scheduler.programs.progress_formulas import (
    BatchGain,
    acting_ttl_s,
    decode_tokens_per_s,
    force_after_s,
    growth_reserve_tokens,
    miss_impact_s,
    repair_score,
    target_rounds,
)
from scheduler.programs.rank_load import reported_tokens
from scheduler.programs.rank_window import RankWindow, RequestSample
from scheduler.programs.saga_formulas import (
    ToolLatency,
    eviction_priority,
    reuse_probability,
    ttl_s,
)
from scheduler.programs.work_stealing import IdleWorkers
from tests.engines import deployment
from tests.program_fleet import Fleet, Probe
from tests.racks import cost_model
from tests.scripts import growing_session, workload

TOOL = GapHint(GapCause.TOOL)


# MORI, arXiv 2606.00866


def test_idleness_is_the_share_of_acting_without_what_the_scheduler_took() -> None:
    idleness = Idleness()
    idleness.dispatched(0.0)
    assert idleness.ratio(5.0) == 0.0
    idleness.ended(10.0)
    assert idleness.ratio(40.0) == 0.75  # 30 of 40 s, the gap under way
    idleness.arrived(40.0)
    assert idleness.ratio(100.0) == 0.75  # held
    idleness.dispatched(100.0)
    assert idleness.ratio(120.0) == 0.5  # 30 of 60 s


def test_idleness_forgets_all_but_five_cycles() -> None:
    idleness = Idleness()
    idleness.dispatched(0.0)
    idleness.ended(0.0)
    idleness.arrived(1000.0)
    for start_s in (1000.0, 1010.0, 1020.0, 1030.0):
        idleness.dispatched(start_s)
        idleness.ended(start_s + 5)
        idleness.arrived(start_s + 10)
    assert idleness.ratio(1040.0) == pytest.approx(1020 / 1040)
    idleness.dispatched(1040.0)
    assert idleness.ratio(1050.0) == pytest.approx(20 / 50), "the sixth takes the first one's place"


def mori_in_overflow(host: int) -> Fleet:
    """A, 80 % idle, and b, 20 %, keep their KV; c grows until that is too much."""
    fleet = Fleet("mori", host=host)
    fleet.arrive("a", 3000)
    fleet.arrive("b", 3000)
    fleet.arrive("c", 3000)
    fleet.end("a", 3000, gap=TOOL, at_s=2.0)
    fleet.end("b", 3000, gap=TOOL, at_s=8.0)
    fleet.end("c", 3000, gap=TOOL, at_s=9.9)
    fleet.arrive("c", 5000, at_s=9.9)
    fleet.wait(10.0)
    return fleet


def test_mori_lets_the_idlest_leave_on_overflow_and_nobody_before() -> None:
    fleet = mori_in_overflow(host=0)
    assert "a" in fleet.orders(Release)
    fleet.arrive("b", 3100)
    assert fleet.replica_of("b") == 0
    fleet.arrive("a", 3100)
    assert fleet.replica_of("a") is None, "5,000 + 3,100 leave 1,900"
    fleet.end("b", 3100, at_s=20.0)
    fleet.close("b")
    assert fleet.replica_of("a") == 0


def test_in_moris_host_memory_a_program_waits_for_its_replica_before_those_with_nothing() -> None:
    fleet = mori_in_overflow(host=100_000)
    fleet.arrive("small", 2500)  # more than the 2,000 that are left
    fleet.arrive("a", 3100)
    fleet.close("b")
    assert fleet.replica_of("a") == 0
    assert fleet.replica_of("small") is None


# Progress-TTL, vllm-router 0.1.17


def rank_window(num_rounds: int = 3) -> RankWindow:
    """As in the router's own tests: prompts of 10,000 tokens that grow by 1,000, one a second."""
    window = RankWindow()
    for second in range(100):
        window.requests.append(RequestSample(10_000, 100, 1000, 1.0, num_rounds, float(second)))
    return window


def test_log_normal_moments() -> None:
    law = LogNormal.fit([exp(-1), exp(1)])
    assert law == LogNormal(0.0, 1.0)
    assert law is not None
    assert law.cdf(1.0) == 0.5
    assert law.mean_below(e) == pytest.approx(0.5 * exp(0.5))  # half of the mean
    assert law.quantile(0.5) == pytest.approx(1.0)
    assert LogNormal.fit([0.0]) is None


def test_the_acting_ttl_outlasts_the_gap_if_that_is_shorter_than_a_miss_costs() -> None:
    gaps_s = [1.0] * 100
    assert 1.0 < acting_ttl_s(gaps_s, impact_s=6.0, max_ttl_s=10.0) <= 6.0  # gains 6 - 1
    assert acting_ttl_s(gaps_s, impact_s=0.9, max_ttl_s=10.0) == 0.0
    assert acting_ttl_s(gaps_s, impact_s=20.0, max_ttl_s=0.5) == 0.0
    assert acting_ttl_s(gaps_s[1:], impact_s=6.0, max_ttl_s=10.0) == 0.0, "99 are too few"


def test_room_is_reserved_for_twice_the_mean_rounds_of_growth() -> None:
    window = rank_window()
    assert target_rounds(window) == 6
    assert growth_reserve_tokens(window, [3.0]) == 9000
    assert target_rounds(rank_window(num_rounds=9)) == 14
    assert growth_reserve_tokens(RankWindow(), [3.0]) == 0


def test_a_turn_is_forced_after_thrice_the_work_ahead() -> None:
    assert force_after_s(20, 0.5, 300.0) == 120.0
    assert force_after_s(1, 0.5, 300.0) == 30.0
    assert force_after_s(1000, 0.5, 300.0) == 300.0
    assert force_after_s(1000, 0.0, 300.0) == 300.0


def test_repair_prefers_the_longest_active_and_the_shortest() -> None:
    assert repair_score(10.0, 40_000, 10_000) == 5.0
    assert repair_score(10.0, 2500, 10_000) == 20.0
    assert repair_score(10.0, 1_000_000, 10_000) == 5.0, "half at least"


def test_a_report_is_scaled_to_the_programs_that_reason() -> None:
    assert reported_tokens(500.0, num_running=2, num_reasoning=4, reasoning_tokens=0.0) == 1000
    assert reported_tokens(500.0, num_running=0, num_reasoning=4, reasoning_tokens=700.0) == 700


def test_a_miss_costs_its_prefill_and_what_that_holds_up() -> None:
    cost = cost_model()
    assert miss_impact_s(cost, 5000) == pytest.approx(1.85 * cost.prefill_s(0, 5000))
    assert miss_impact_s(cost, 0) == 0.0


def test_one_more_in_the_batch_must_be_worth_its_prefill() -> None:
    # 10 / (0.0106 + 0.0042 + 0.0142) = 10 / 0.029; one more: 11 / 0.02942
    assert decode_tokens_per_s(10, 100_000) == pytest.approx(10 / 0.029)
    gain_s = 11 / 0.02942 / (10 / 0.029) - 1  # of the window's second of decoding
    common = (10, 100_000, 0, 50_000.0, 100.0, [(3.0, 9.0)])
    # 50 rounds of room and 43.9 after: nobody loses any of the three.
    assert BatchGain(*common, recovery_s=gain_s - 1e-6).admits(rank_window())
    assert not BatchGain(*common, recovery_s=gain_s + 1e-6).admits(rank_window())
    assert not BatchGain(*common, recovery_s=0.0).admits(RankWindow())


def test_a_program_is_paused_by_a_ttl_of_zero_and_goes_on_where_there_is_room() -> None:
    fleet = Fleet("progress_ttl")
    fleet.arrive("a", 6000)
    fleet.arrive("b", 6000)
    assert [fleet.replica_of("a"), fleet.replica_of("b")] == [0, None]
    fleet.arrive("c", 1000)
    assert fleet.replica_of("c") == 0, "it fits beside"
    fleet.end("a", 6000)
    assert fleet.replica_of("b") == 0
    fleet.arrive("a", 6100)
    assert fleet.replica_of("a") is None


def test_of_those_that_wait_the_one_that_ran_last_goes_first_and_new_ones_last() -> None:
    fleet = Fleet("progress_ttl")
    for session in ("old", "recent"):
        fleet.arrive(session, 6000)
        fleet.end(session, 6000, at_s=fleet.now_s + 1)
    fleet.arrive("big", 6000)
    for session in ("new", "old", "recent"):
        fleet.arrive(session, 6000)
    fleet.end("big", 6000)
    assert [fleet.replica_of(one) for one in ("recent", "old", "new")] == [0, None, None]


def test_progress_ttl_forces_a_turn_after_300_s_and_waits_for_a_backed_up_engine_until_then() -> (
    None
):
    probe = Probe()
    fleet = Fleet("progress_ttl", probe=probe)
    fleet.arrive("a", 1000)
    probe.waiting = 1
    fleet.wait(1.0)
    fleet.arrive("b", 1000)
    assert fleet.replica_of("b") is None
    fleet.wait(300.0)
    assert fleet.replica_of("b") is None
    fleet.wait(302.0)
    assert fleet.replica_of("b") == 0


# SAGA, arXiv 2605.00528


def test_eviction_weighs_idleness_reuse_and_size() -> None:
    reuse = reuse_probability(900, observation_tokens=100, end_probability=0.05)
    assert reuse == pytest.approx(0.95 * 0.9)
    # 0.3 * 0.5 + 0.5 * 0.145 + 0.2 * 1
    assert eviction_priority(0.5, reuse, 1.0) == pytest.approx(0.4225)
    assert reuse_probability(0, 100, 0.05) == 0.0


def test_the_ttl_is_the_95th_percentile_less_up_to_half_of_it_under_pressure() -> None:
    law = LogNormal(log(10.0), 1.0)
    p95_s = 10 * exp(1.6448536)
    assert ttl_s(law, used_share=0.7) == pytest.approx(p95_s)
    assert ttl_s(law, used_share=0.8) == pytest.approx(0.75 * p95_s)
    assert ttl_s(law, used_share=1.0) == pytest.approx(0.5 * p95_s)
    assert ttl_s(LogNormal(log(200.0), 1.0), 0.0) == 300.0
    assert ttl_s(None, 0.0) == 300.0


def test_a_tools_latency_is_averaged_exponentially() -> None:
    assert ToolLatency().law is None
    latency = ToolLatency()
    latency.add(10.0)
    assert latency.law == LogNormal(log(10.0), 1.0)
    latency.add(10.0)
    law = latency.law
    assert law is not None
    assert (law.mu, law.sigma) == pytest.approx((log(10.0), 0.9**0.5))


def test_an_idle_worker_steals_from_one_with_a_queue_and_twice_its_load() -> None:
    workers = IdleWorkers(seed=0)
    thief = ReplicaId(0)
    workers.saw(thief, 5.0, is_idle=True)
    assert workers.thieves(5.05) == []
    assert workers.next_theft_s(5.05) == pytest.approx(5.1)
    assert workers.thieves(5.2) == [0]
    assert workers.victim(thief, [0.4, 0.7, 0.9], [0, 3, 2]) == 2
    assert workers.victim(thief, [0.4, 0.9, 0.9], [0, 0, 2]) == 2
    assert workers.victim(thief, [0.4, 0.7, 0.7], [0, 3, 2]) is None


def test_saga_is_sticky_below_80_percent_and_goes_to_the_least_loaded_above() -> None:
    fleet = Fleet("saga_walru", num_replicas=2)
    fleet.arrive("a", 2000)
    fleet.end("a", 2000, gap=TOOL)
    fleet.arrive("b", 7000)
    fleet.arrive("c", 7900)
    assert [fleet.replica_of(one) for one in "abc"] == [0, 1, 0]
    fleet.arrive("a", 2000)
    assert fleet.replica_of("a") == 0, "79 % there, 70 % elsewhere"
    fleet.end("a", 2000, gap=TOOL)
    fleet.arrive("d", 150)
    fleet.end("c", 7900)
    fleet.arrive("e", 8000)
    assert fleet.replica_of("e") == 0
    fleet.arrive("a", 2000)
    assert fleet.replica_of("a") == 1


def test_saga_evicts_the_oldest_and_largest_for_a_turn_that_lacks_room() -> None:
    fleet = Fleet("saga_walru")
    for session, tokens in (("small", 1000), ("large", 5000), ("medium", 3000)):
        fleet.arrive(session, tokens)
    for session, tokens in (("small", 1000), ("large", 5000), ("medium", 3000)):
        fleet.end(session, tokens, gap=TOOL, at_s=fleet.now_s + 1)
    fleet.arrive("new", 5500, at_s=4.0)
    # Of 3, 2 and 1 s idle: 0.3 * 1 + 0.2 * 0.2, 0.3 * 0.67 + 0.2 * 1, 0.3 * 0.33 + 0.2 * 0.6
    assert fleet.orders(Release) == ["large"]


def test_a_stolen_turn_runs_when_its_kv_has_arrived() -> None:
    probe = Probe()
    probe.cached_blocks = 40
    fleet = Fleet("saga_walru", num_replicas=2, probe=probe)
    fleet.arrive("a", 4000, blocks=60)
    fleet.end("a", 4000, gap=TOOL)
    fleet.arrive("b", 100)
    fleet.arrive("c", 7000)
    assert [fleet.replica_of(one) for one in "bc"] == [1, 0]
    fleet.arrive("a", 4000, blocks=60)
    assert fleet.replica_of("a") is None, "it waits at its worker"
    fleet.end("b", 100, at_s=1.0)
    fleet.close("b")
    pull_s = cost_model().transfer.pull_s(40 * 64)
    fleet.wait(1.0999)
    assert fleet.orders(Pull) == []
    fleet.wait(1.1 + 0.9 * pull_s)
    (pull,) = [command for command in fleet.commands if isinstance(command, Pull)]
    assert (pull.source_id, pull.replica_id) == (0, 1)
    assert pull.ready_s == pytest.approx(1.1 + pull_s)
    assert fleet.replica_of("a") is None
    fleet.wait(pull.ready_s)
    assert fleet.replica_of("a") == 1


# On emulated engines


@pytest.mark.parametrize("host_bytes_per_chip", [0.0, 20e9])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_nobody_lets_a_rack_stand_still_that_has_room_for_half(
    policy: str, host_bytes_per_chip: float
) -> None:
    def session(name: str, branch: int) -> SessionScript:
        child = growing_session(f"{name}.child", branch + 100, num_turns=3, start=40_000)
        return growing_session(
            name,
            branch,
            num_turns=6,
            start=120_000 + 9000 * branch,
            gap_s=0.5 + branch**2,
            children={2: (child,)},
        )

    ticks = itertools.count()
    detail = simulate(
        workload(*(session(f"s{n}", n) for n in range(16))),
        deployment("qwen3-8b", num_replicas=2),
        SimulationOptions(policy=policy, host_bytes_per_chip=host_bytes_per_chip),
        stopwatch=lambda: float(next(ticks)),
    )
    assert detail.summary.sessions.completed == 16
    assert detail.summary.turns == 16 * (6 + 3)
