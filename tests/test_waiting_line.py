"""Newcomers are turned away when too many wait, told a true time, and let in again."""

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_runtime.errors import TooManyRequestsError
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.neutral_request import NeutralRequest, TextPrompt
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.gateway.waiting_line import KEPT_S, LONGEST_S, WaitingLine
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from scheduler.events import NO_TENANT
from scheduler.ids import SessionId
from tests.fake_runner import FakeRunner
from tests.overload_run import Phase, overload

MAX_WAIT_S = 30.0


def line_of(pace: float, num_waiting: int) -> tuple[WaitingLine, float]:
    """Return a line that has moved steadily for a while, and the time."""
    line, now_s = WaitingLine(MAX_WAIT_S), 0.0
    for _ in range(num_waiting):
        line.joined(now_s)
    for _ in range(50):
        now_s += 1.0 / pace
        line.joined(now_s)
        line.left(now_s, 5.0)
    return line, now_s


def told(line: WaitingLine, name: str, now_s: float) -> float:
    """Return when a session is told to come back."""
    with pytest.raises(TooManyRequestsError) as refused:
        line.check(SessionId(name), now_s)
    return refused.value.retry_after_s or 0.0


@given(st.floats(0.2, 50.0), st.integers(1, 500))
def test_the_wait_is_the_line_over_its_pace(pace: float, num_waiting: int) -> None:
    line, now_s = line_of(pace, num_waiting)
    assert line.expected_wait_s(now_s) == pytest.approx(num_waiting / pace, rel=0.25)


@given(st.floats(0.5, 10.0), st.integers(1, 30))
def test_who_comes_when_told_is_let_in(pace: float, num_refused: int) -> None:
    line, now_s = line_of(pace, int(pace * MAX_WAIT_S * 1.5) + 1)
    times_s = [told(line, f"s{number}", now_s) for number in range(num_refused)]
    assert times_s == sorted(set(times_s))
    assert all(0.0 < one <= LONGEST_S for one in times_s)
    own_pace = line.num_waiting / line.expected_wait_s(now_s)
    assert times_s[0] == pytest.approx(line.num_waiting / own_pace - MAX_WAIT_S + 1 / own_pace)
    if num_refused > 1:
        assert times_s[1] - times_s[0] == pytest.approx(1 / own_pace)
    assert told(line, "s0", now_s + times_s[0] / 2) == pytest.approx(times_s[0] / 2)  # too early
    gone = 0
    for number, time_s in enumerate(times_s):
        at_s = now_s + time_s + 1e-6
        while line.num_waiting and now_s + (gone + 1) / own_pace <= at_s:
            gone += 1
            line.left(now_s + gone / own_pace, 5.0)
        line.check(SessionId(f"s{number}"), at_s)
        line.joined(at_s)


def test_who_has_a_place_goes_before_who_comes_anew_and_is_forgotten_after_a_while() -> None:
    line, now_s = line_of(1.0, 40)
    place_s = told(line, "first", now_s)
    for _ in range(20):
        line.left(now_s, None)
    assert line.expected_wait_s(now_s) < MAX_WAIT_S
    told(line, "anew", now_s)
    for second in range(1, int(place_s + KEPT_S) + 60):
        line.joined(now_s + second)
        line.left(now_s + second, 5.0)
    later_s = now_s + second
    assert line.expected_wait_s(later_s) > MAX_WAIT_S / 2
    line.check(SessionId("much later"), later_s)


def test_who_would_have_to_wait_for_very_long_has_no_place() -> None:
    line, now_s = line_of(0.5, 60)
    times_s = [told(line, f"s{number}", now_s) for number in range(400)]
    assert max(times_s) == LONGEST_S
    assert sum(time_s < LONGEST_S for time_s in times_s) <= LONGEST_S * 0.5 * 1.1


def test_nobody_is_turned_away_before_the_pace_is_known() -> None:
    line = WaitingLine(MAX_WAIT_S)
    for _ in range(1000):
        line.joined(0.0)
    line.check(SessionId("late"), 0.5)


class LineMachine(RuleBasedStateMachine):
    """The line counts right whatever comes, and tells times that are to come."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.now_s, self.num = WaitingLine(MAX_WAIT_S), 0.0, 0

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def one_joins(self) -> None:
        self.line.joined(self.now_s)
        self.num += 1

    @precondition(lambda self: self.num)
    @rule(waited_s=st.none() | st.floats(0.0, 100.0))
    def one_leaves(self, waited_s: float | None) -> None:
        self.line.left(self.now_s, waited_s)
        self.num -= 1

    @rule(name=st.sampled_from("abc"))
    def a_newcomer_asks(self, name: str) -> None:
        refused = None
        try:
            self.line.check(SessionId(name), self.now_s)
        except TooManyRequestsError as error:
            refused = error
        if refused is not None:
            assert 0.0 < (refused.retry_after_s or 0.0) <= LONGEST_S

    @invariant()
    def it_counts_right(self) -> None:
        assert self.line.num_waiting == self.num
        assert self.line.expected_wait_s(self.now_s) >= 0.0


TestLine = LineMachine.TestCase


def test_who_is_turned_away_pushes_nobody_out_and_sub_agents_are_not() -> None:
    line, now_s = line_of(1.0, 60)
    sessions = SessionDirectory(16, max_sessions=4)
    models = Models.of_one("m", 0, 1000)
    opening = Opening(FakeRunner(), models, sessions, 1000, line)
    under_way = [sessions.find(SessionKeys(exact=f"old-{n}"), (), now_s) for n in range(4)]
    for session in under_way:
        sessions.turn_ended(session, 10, 0)

    async def newcomers_come() -> None:
        await anyio.sleep_until(now_s)
        for number in range(40):
            keys = SessionKeys(exact=f"new-{number}")
            with pytest.raises(TooManyRequestsError):
                await opening.open(NeutralRequest(None, (TextPrompt("word " * 50),), keys=keys))
        child = await opening.find_session(SessionKeys(exact="child"), (), "old-0")
        assert child.parent_id == "old-0"

    anyio.run(newcomers_come, backend_options={"loop_factory": VirtualTimeLoop})
    known = {session.public_id for session in sessions.page(NO_TENANT, None, 100)[0]}
    assert {session.public_id for session in under_way} <= known
    assert len(known) <= 6
    assert line.num_refused == 40


def test_three_times_what_the_rack_can_do_is_borne_for_ten_minutes_and_then_forgotten() -> None:
    """The rack runs some 0.4 sessions a second."""
    overload_s, recovery_s = 600.0, 30.0
    phases = [Phase(1.2, overload_s), Phase(0.1, 120.0)]
    told = overload(phases, max_wait_s=MAX_WAIT_S, seed=3, come_back=0.3)
    asked_s, waits_s = np.array(told.ttft_s).T
    assert len(told.refused) > 300
    assert told.num_gone > 0.5 * len(told.refused)
    assert np.percentile(waits_s[asked_s < overload_s], 99) < 2 * MAX_WAIT_S
    assert max(told.num_waiting) < 60
    assert np.mean([was_let_in for _, was_let_in in told.came_back]) > 0.9
    well_s = overload_s + recovery_s
    assert max(at_s for at_s, _ in told.refused) < well_s
    assert max(waits_s[asked_s >= well_s]) < MAX_WAIT_S
    assert min(told.num_waiting[int(well_s) : int(overload_s + 120.0)]) == 0


def test_whoever_is_told_when_to_come_back_may_do_so() -> None:
    told = overload([Phase(1.2, 100.0)], max_wait_s=MAX_WAIT_S, seed=3)
    assert told.refused, "nobody was turned away"
    assert np.mean([was_let_in for _, was_let_in in told.came_back]) > 0.9
    calm = overload([Phase(0.2, 100.0)], max_wait_s=MAX_WAIT_S, seed=3)
    assert not calm.refused
