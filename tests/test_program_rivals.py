"""Whole-agent policies of others: each formula against an example worked by hand."""

from collections.abc import Sequence
from math import e, exp, log

import pytest

from scheduler.commands import Drop, Pull, Release, Retain
from scheduler.events import GapCause, GapHint
from scheduler.ids import ReplicaId
from scheduler.programs.call_times import CallTimes
from scheduler.programs.concur import AgentWindow, next_window
from scheduler.programs.idleness import Idleness
from scheduler.programs.infercept import Handling, waste
from scheduler.programs.log_normal import LogNormal
from scheduler.programs.plas import call_priority, service_class
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
from scheduler.programs.thunderagent import best_fit_decreasing
from scheduler.programs.tool_gaps import GapWindow
from scheduler.programs.ttl_rules import (
    Memoryfulness,
    PublicTtl,
    best_ttl_s,
    exponential_ttl_s,
)
from scheduler.programs.work_stealing import IdleWorkers
from tests.program_fleet import Fleet, Probe
from tests.racks import cost_model

TOOL = GapHint(GapCause.TOOL)


# CONCUR, arXiv 2601.22705


@pytest.mark.parametrize(
    ("window", "usage", "hit_rate", "after"),
    [
        (4, 0.19, 0.0, 6),  # U < 0.2: W += 2
        (4, 0.2, 0.0, 4),  # held
        (5, 0.51, 0.19, 2.5),  # U > 0.5 and H < 0.2: W *= 0.5
        (5, 0.51, 0.2, 5),
        (5, 0.5, 0.1, 5),
        (5, 0.9, None, 5),
        (1, 0.9, 0.0, 1),
    ],
)
def test_concur_adds_two_agents_or_halves(
    window: float, usage: float, hit_rate: float | None, after: float
) -> None:
    assert next_window(window, usage, hit_rate) == after


def test_a_window_that_agents_do_not_fill_does_not_grow_away_from_them() -> None:
    window = AgentWindow()
    for _ in range(50):
        window.control(kv_usage=0.0)
    assert window.size == 2


def test_concur_pauses_an_agent_over_the_window_at_the_end_of_its_step() -> None:
    probe = Probe()
    fleet = Fleet("concur", probe=probe)
    for session in "abc":
        fleet.arrive(session)
    assert [fleet.replica_of(session) for session in "abc"] == [0, 0, None], "two may run at first"
    fleet.wait(60.0)
    assert fleet.replica_of("c") == 0, "U < 0.2: two more may"
    probe.usage = 0.9
    for session in "abc":
        fleet.prefill(session, cached=100)  # H = 0.1
    fleet.wait(121.0)
    fleet.end("a")
    fleet.arrive("a")
    assert fleet.replica_of("a") is None, "three ran where two may"
    fleet.end("b")
    fleet.arrive("b")
    assert fleet.replica_of("b") == 0
    fleet.close("c")
    fleet.end("c")
    assert fleet.replica_of("a") == 0


# ThunderAgent, arXiv 2602.13692; Dynamo's thresholds: .95, .80, .85


def test_the_largest_that_fit_together_go_where_most_room_is() -> None:
    # 900 in all: 500 + 300 fit, 200 more do not, 100 more do. Placed 500, 300, 100, each where
    # most room is: of (600, 300) the first, then of (100, 300) the second, then the first.
    assert best_fit_decreasing([300, 500, 200, 100], [600, 300]) == [1, 0, None, 0]
    assert best_fit_decreasing([800], [600, 300]) == [None], "in all there is room, nowhere is"


def test_thunderagent_pauses_the_shortest_acting_programs_first_down_to_80_percent() -> None:
    fleet = Fleet("thunderagent")
    for session, tokens in (("a", 3000), ("b", 2000), ("c", 2900)):
        fleet.arrive(session, tokens)  # with 100 each: 8,200 of 8,500
    fleet.end("a", 3300)
    fleet.end("b", 2200)
    fleet.arrive("c2", 100)
    assert fleet.replica_of("c2") is None, "8,700 are there"
    fleet.end("c", 4000)  # 3,400 + 2,300 + 4,100 = 9,800, above 9,500
    fleet.arrive("c", 4000)
    fleet.wait(5.0)
    for session in "ab":
        fleet.arrive(session, 3000)
    # The shortest, b, leaves 7,500; a stays.
    assert fleet.replica_of("a") == 0
    assert fleet.replica_of("b") is None


def test_a_reasoning_program_is_marked_and_paused_when_its_turn_ends() -> None:
    fleet = Fleet("thunderagent")
    fleet.arrive("a", 4000)
    fleet.end("a", 6000)
    fleet.arrive("a", 6000)
    fleet.arrive("b", 2000)
    fleet.end("b", 3500)
    fleet.arrive("b", 3500)  # 9,700, above 9,500; both reason
    fleet.wait(5.0)
    fleet.end("b", 3600)
    fleet.arrive("b", 3700)
    assert fleet.replica_of("b") is None
    fleet.end("a", 6100, at_s=7.0)  # its weight is 2**-3 when it is looked for room, at 10 s
    fleet.wait(9.9)
    assert fleet.replica_of("b") is None
    fleet.wait(10.0)
    assert fleet.replica_of("b") == 0


def test_returning_programs_are_resumed_before_new_ones_and_the_shortest_first() -> None:
    fleet = Fleet("thunderagent")
    fleet.arrive("big", 8000)
    for session, tokens in (("new", 1000), ("newer", 500)):
        fleet.arrive(session, tokens)
    assert fleet.replica_of("new") is None
    fleet.end("big", 8000)
    fleet.wait(5.0)  # 8,000 * 2**-5 = 250
    assert [fleet.replica_of("new"), fleet.replica_of("newer")] == [0, 0]


def test_who_was_paused_for_half_an_hour_is_resumed_whatever_the_room() -> None:
    fleet = Fleet("thunderagent")
    fleet.arrive("a", 8000)
    fleet.arrive("b", 8000)
    fleet.wait(1799.0)
    assert fleet.replica_of("b") is None
    fleet.wait(1800.0)
    assert fleet.replica_of("b") == 0


# PLAS, arXiv 2502.13965


def test_the_classes_of_plas_double() -> None:
    assert [service_class(s) for s in (0, 63.9, 64, 127.9, 128, 4095, 4096, 1e9)] == [
        *(0, 0, 1, 1, 2, 6, 7, 7)
    ]


def test_a_program_that_waited_eight_times_its_service_goes_first_again() -> None:
    times = CallTimes()
    times.service_s, times.wait_s = 100.0, 799.0
    assert call_priority(times) == 1
    times.wait_s = 800.0
    assert call_priority(times) == 0


def test_plas_counts_what_a_programs_finished_calls_were_served() -> None:
    fleet = Fleet("plas", num_replicas=2)
    fleet.arrive("a", 5000)
    assert (fleet.replica_of("a"), fleet.priority_of("a")) == (0, 0)
    fleet.prefill("a", at_s=1.0)
    fleet.end("a", 5000, at_s=201.0)  # 200 s of decoding: [128, 256)
    fleet.arrive("a", 5000, at_s=202.0)
    assert (fleet.replica_of("a"), fleet.priority_of("a")) == (0, 2)
    fleet.end("a", 5000)
    for session in "bc":
        fleet.arrive(session, 5000)
    assert [fleet.replica_of("b"), fleet.replica_of("c")] == [1, 0]
    fleet.arrive("a", 2049)
    assert fleet.replica_of("a") == 0, "its own, busy as it is"
    fleet.end("a", 2049)
    fleet.arrive("a", 2048)
    assert fleet.replica_of("a") == 1, "the least used one"


# Continuum, arXiv 2511.02230, and vllm-continuum


def test_the_time_to_live_weighs_the_share_of_tools_that_are_back_against_the_wait() -> None:
    # 1/3 * 5 - 1 = 0.67; 2/3 * 5 - 2 = 1.33; 3/3 * 5 - 10 < 0
    assert best_ttl_s([1.0, 2.0, 10.0], benefit_s=5.0) == 2.0
    assert best_ttl_s([1.0, 2.0, 10.0], benefit_s=2.0) == 0.0  # 0.67 - 1, 1.33 - 2
    assert best_ttl_s([], benefit_s=5.0) == 0.0


def test_exponential_tools_are_waited_for_until_the_hazard_is_not_worth_it() -> None:
    assert exponential_ttl_s(mean_s=1.0, benefit_s=e**2) == pytest.approx(2.0)
    assert exponential_ttl_s(mean_s=3.0, benefit_s=2.0) == 0.0


@pytest.mark.parametrize(
    ("lengths", "eta"),
    [
        ([10, 10], 1.0),  # done and left add up to ten
        # (1, 0), (1, 2), (2, 1), (3, 0): cov -5/16, both variances 11/16
        ([1, 3], 5 / 11),
        ([], 1.0),
    ],
)
def test_memoryfulness_is_minus_the_correlation_of_turns_done_and_left(
    lengths: Sequence[int], eta: float
) -> None:
    memory = Memoryfulness()
    for turns in lengths:
        memory.add(turns)
    assert memory.eta == pytest.approx(eta)


def test_the_latest_gaps_are_kept_sorted() -> None:
    window = GapWindow(3)
    for gap_s in (5.0, 1.0, 3.0, 2.0):
        window.add(gap_s)
    assert window.ascending == [1.0, 2.0, 3.0]


def test_public_continuum_pins_for_two_seconds_unless_the_tool_is_slow() -> None:
    fleet = Fleet("continuum_public")
    fleet.arrive("a")
    fleet.end("a", gap=TOOL, at_s=1.0)
    assert fleet.orders(Retain) == ["a"], "unknown tools count as fast"
    fleet.wait(2.9)
    assert fleet.orders(Release) == []
    fleet.wait(3.0)
    assert fleet.orders(Release) == ["a"]
    fleet.arrive("a", at_s=3.1)  # the mean is 2.1 s now
    fleet.prefill("a")
    fleet.end("a", gap=TOOL)
    assert fleet.orders(Retain) == ["a"]


def test_public_continuum_keeps_nothing_without_a_tool_call() -> None:
    fleet = Fleet("continuum_public")
    fleet.arrive("a")
    fleet.end("a", gap=GapHint(GapCause.HUMAN))
    assert fleet.orders(Retain) == []
    rule = PublicTtl()
    rule.saw_gap("grep", 1.0)
    rule.saw_gap("grep", 3.0)
    assert rule._means["grep"].mean == 2.0


def test_continuum_lets_pinned_turns_go_first_and_then_the_oldest_program() -> None:
    fleet = Fleet("continuum_public")
    for session in "abc":
        fleet.arrive(session)
    for session in "ab":
        fleet.end(session, gap=TOOL)
        fleet.arrive(session)  # at once, within its time
    fleet.end("c", gap=TOOL)
    fleet.arrive("c", at_s=1000.0)
    fleet.arrive("d", at_s=1000.0)
    order = sorted("abcd", key=fleet.priority_of)
    assert order == ["a", "b", "c", "d"]
    assert fleet.priority_of("c") - fleet.priority_of("b") > 1 << 39


def test_a_pin_outlasts_its_time_while_its_turn_waits_and_ends_with_the_prefill() -> None:
    fleet = Fleet("continuum_public")
    fleet.arrive("a")
    fleet.end("a", gap=TOOL)
    fleet.arrive("a", at_s=1.0)
    fleet.wait(9.0)
    assert fleet.orders(Release) == []
    fleet.prefill("a")
    assert fleet.orders(Release) == ["a"]


def test_the_program_that_came_last_loses_its_pin_when_the_head_of_the_queue_lacks_room() -> None:
    fleet = Fleet("continuum_public")
    for session, tokens in (("a", 4000), ("b", 3000), ("c", 2000)):
        fleet.arrive(session, tokens)
        fleet.end(session, tokens, gap=TOOL)
    fleet.arrive("d", 4000)  # 1,000 are free: c's 2,000 are not enough
    assert fleet.orders(Release) == ["c", "b"]


def test_a_queue_that_stood_still_is_looked_at_again() -> None:
    probe = Probe()
    fleet = Fleet("continuum_public", probe=probe)
    fleet.arrive("a", 6000)
    fleet.end("a", 6000, gap=TOOL)
    fleet.arrive("b", 5000)
    probe.usage = 0.6  # what is kept
    probe.waiting = 1
    assert fleet.orders(Release) == [], "while there was room"
    fleet.wait(0.5)
    assert fleet.orders(Release) == ["a"]


# InferCept, arXiv 2402.01869


def test_waste_is_in_tokens_of_memory_times_seconds() -> None:
    # preserve 2 * 1000, discard 0.5 * (1000 + 3000), swap 2 * 0.1 * 3000
    assert waste(1000, 3000, 2.0, 0.5, 0.1) == (2000, 2000, 600)


@pytest.mark.parametrize(
    ("call_s", "swap_s", "least"),
    [
        (2.0, float("inf"), Handling.PRESERVE),
        (2.1, float("inf"), Handling.DISCARD),
        (2.1, 0.1, Handling.SWAP),
        (0.5, 0.1, Handling.PRESERVE),
    ],
)
def test_kv_is_handled_as_wastes_least(call_s: float, swap_s: float, least: Handling) -> None:
    assert waste(1000, 3000, call_s, 0.5, swap_s).least is least


def test_infercept_keeps_kv_until_that_wastes_more_than_to_compute_it_again() -> None:
    fleet = Fleet("infercept")
    fleet.arrive("a", 4000)
    fleet.arrive("b", 2000)
    fleet.end("a", 4000, gap=TOOL, at_s=10.0)
    assert fleet.orders(Retain) == ["a"]
    break_even_s = cost_model().prefill_s(0, 4000) * (4000 + 2000) / 4000
    fleet.wait(10.0 + 0.99 * break_even_s)
    assert fleet.orders(Release) == []
    fleet.wait(10.0 + break_even_s + 0.02)
    assert fleet.orders(Release) == ["a"]


def test_infercept_swaps_at_once_where_there_is_no_batch_to_stall() -> None:
    fleet = Fleet("infercept", host=100_000)
    fleet.arrive("a", 4000)
    fleet.end("a", 4000, gap=TOOL)
    fleet.wait(0.1)
    assert fleet.orders(Drop) == ["a"]


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
    latency = ToolLatency()
    assert latency.law is None
    latency.add(10.0)
    assert latency.law == LogNormal(log(10.0), 1.0)
    latency.add(10.0)
    assert latency.law == LogNormal(pytest.approx(log(10.0)), pytest.approx(0.9**0.5))


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
