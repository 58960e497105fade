"""Whole-agent policies of others: each formula against an example worked by hand."""

from collections.abc import Sequence
from math import e

import pytest

from scheduler.commands import Drop, Release, Retain
from scheduler.events import GapCause, GapHint
from scheduler.programs.call_times import CallTimes
from scheduler.programs.concur import AgentWindow, next_window
from scheduler.programs.infercept import Handling, waste
from scheduler.programs.plas import call_priority, service_class
from scheduler.programs.thunderagent import best_fit_decreasing
from scheduler.programs.tool_gaps import GapWindow
from scheduler.programs.ttl_rules import (
    Memoryfulness,
    PublicTtl,
    best_ttl_s,
    exponential_ttl_s,
)
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
