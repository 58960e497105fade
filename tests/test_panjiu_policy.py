"""Panjiu's policy: where turns go, whose KV stays, who waits and for how long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.commands import Dispatch, Pull, Release, Retain
from scheduler.events import GapCause, GapHint, SessionClosed, TurnArrived, Woken
from scheduler.ids import ReplicaId, SessionId, TenantId, TurnId
from scheduler.panjiu.held_turns import HeldTurns
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.panjiu.tenant_shares import HALF_LIFE_S, TenantShares
from scheduler.session import Session, Turn
from tests.panjiu_driver import BLOCK, Driver, first_hash


def test_a_session_goes_on_where_its_kv_is() -> None:
    rack = Driver(4, 200_000)
    home = rack.run("a", 20_000)
    assert [rack.run("a", 20_000 + 900 * n) for n in range(1, 4)] == [home] * 3


def test_kv_is_kept_after_every_turn_and_let_go_when_the_session_ends() -> None:
    rack = Driver(1, 200_000)
    turn = rack.arrive("a", 20_000)
    assert Retain(SessionId("a"), rack_home(rack, turn)) in rack.end(turn, 20_010)
    commands = rack.scheduler.handle(SessionClosed(SessionId("a")), rack.now_s)
    assert commands == (Release(SessionId("a"), rack_home(rack, turn)),)
    assert rack.policy.ledger.used_blocks.loads == [0]


def rack_home(rack: Driver, turn: str) -> ReplicaId:
    return ReplicaId(rack.where[turn])


def test_kv_is_pulled_to_an_idle_replica_when_its_own_is_busy_and_the_turn_waits_for_it() -> None:
    rack = Driver(2, 2_000_000)
    home = rack.run("a", 100_000)
    other = 1 - home
    while not any(rack.where.get(f"big{n}#1") == home for n in range(4)):
        rack.arrive(f"big{len(rack.num_turns)}", 400_000)
        if len(rack.num_turns) > 6:
            pytest.fail("nobody went to the home")
        for turn, where in list(rack.where.items()):
            if where == other and turn.startswith("big"):
                rack.prefill(turn)
                rack.end(turn, 400_010)
                rack.close(turn.split("#")[0])
                del rack.where[turn]
    turn = TurnId("a#2")
    commands = rack.say(turn, "a", range(first_hash("a"), first_hash("a") + 1576))
    (pull,) = [command for command in commands if isinstance(command, Pull)]
    assert (pull.source_id, pull.replica_id) == (home, other)
    assert not any(isinstance(command, Dispatch) for command in commands)
    assert rack.scheduler.next_wake_s == pull.ready_s
    commands = rack.scheduler.handle(Woken(), pull.ready_s)
    assert Dispatch(turn, pull.replica_id) in commands


def test_what_a_human_left_is_dropped_before_what_a_tool_will_need() -> None:
    rack = Driver(1, 100_000)
    rack.run("human", 40_000, GapHint(GapCause.HUMAN))
    rack.run("tool", 40_000, GapHint(GapCause.TOOL, expected_s=110.0))
    turn = rack.arrive("new", 20_000)
    rack.wake(100.0)
    assert turn in rack.where
    held = {kv.session.session_id for kv in rack.policy.ledger.residents[0]}
    assert held == {"tool", "new"}


def test_a_newcomer_waits_rather_than_drop_kv_that_is_about_to_be_used() -> None:
    rack = Driver(1, 100_000)
    soon = GapHint(GapCause.TOOL, expected_s=0.5)
    rack.run("a", 45_000, soon)
    rack.run("b", 45_000, soon)
    late = rack.arrive("new", 40_000)
    assert late not in rack.where
    assert rack.run("a", 46_000, soon) == 0, "those inside go on"
    rack.close("b")
    assert late in rack.where


def test_a_lease_keeps_kv_that_would_go_first_as_far_as_the_quota_goes() -> None:
    for lease_s, kept in ((0.0, "tool"), (3600.0, "human")):
        rack = Driver(1, 100_000, PanjiuSettings(lease_share=0.5))
        rack.run("human", 40_000, GapHint(GapCause.HUMAN, lease_s=lease_s))
        rack.run("tool", 40_000, GapHint(GapCause.TOOL, expected_s=200.0))
        rack.now_s += 2.0
        rack.arrive("new", 14_000)
        names = {kv.session.session_id for kv in rack.policy.ledger.residents[0]}
        assert kept in names


def test_nobody_waits_for_ever() -> None:
    rack = Driver(1, 100_000, PanjiuSettings(patience=2.0))
    soon = GapHint(GapCause.TOOL, expected_s=0.5)
    rack.run("a", 45_000, soon)
    rack.run("b", 45_000, soon)
    late = rack.arrive("new", 60_000)
    assert late not in rack.where
    for number in range(1, 400):
        rack.wake(1.0)
        if late in rack.where:
            break
        rack.run("a", 45_000 + number, soon)
    assert late in rack.where


def test_a_trunk_is_paid_for_once() -> None:
    rack = Driver(1, 400_000)
    for n in range(10):
        rack.run(f"s{n}", 20_000, shared=250)
    used = rack.policy.ledger.tree.held_blocks[0]
    assert used == 250 + 10 * (20_000 // BLOCK - 250)


def test_a_replaced_history_gives_its_room_back_at_once() -> None:
    rack = Driver(1, 400_000)
    rack.run("a", 200_000)
    before = rack.policy.ledger.used_blocks.loads[0]
    rack.say("a#2", "a", range(7 << 50, (7 << 50) + 312))
    assert before > 3000
    assert rack.policy.ledger.used_blocks.loads[0] < 400


def test_turns_of_one_session_run_together_where_its_kv_is() -> None:
    rack = Driver(4, 200_000)
    turns = [rack.arrive("a", 20_000) for _ in range(3)]
    assert len({rack.where[turn] for turn in turns}) == 1
    for turn in turns:
        rack.prefill(turn)
        rack.end(turn, 20_010)
    rack.close("a")
    assert rack.policy.ledger.used_blocks.loads == [0] * 4


def test_turns_of_one_session_may_say_different_things_at_once() -> None:
    rack = Driver(1, 400_000)
    base = first_hash("a")
    common = list(range(base, base + 100))
    chains = {
        "first": [*common, *range(base + 1000, base + 1200)],
        "second": [*common, *range(base + 5000, base + 5200)],
        "third": [*common, *range(base + 5000, base + 5220)],
    }
    for name in ("first", "second"):
        rack.say(name, "a", chains[name])
    for name in ("first", "second"):
        rack.prefill(name)
        rack.end(name, 19_300)
    rack.say("third", "a", chains["third"])
    tree = rack.policy.ledger.tree
    assert tree.held_blocks == [320], "it goes on with the second and not with the first"
    rack.prefill("third")
    rack.end("third", 20_600)
    rack.close("a")
    assert tree.held_blocks == [0]


def test_a_turn_waits_for_kv_that_was_being_moved_out_of_the_way() -> None:
    rack = Driver(2, 100_000)
    rack.run("old", 40_000, GapHint(GapCause.HUMAN))
    rack.run("new", 40_000, GapHint(GapCause.TOOL, expected_s=2000.0))
    rack.now_s += 1000.0
    commands = rack.say("big", "big", range(9 << 40, (9 << 40) + 1000))
    (pull,) = [command for command in commands if isinstance(command, Pull)]
    assert pull.source_id == rack.where["big"]
    returning = rack.arrive(pull.session_id, 40_900)
    assert returning not in rack.where, "not before its KV is there"
    rack.wake(pull.ready_s - rack.now_s)
    assert rack.where[returning] == pull.replica_id


def test_least_work_goes_first_and_what_is_due_before_that() -> None:
    held = HeldTurns()
    session = Session(SessionId("s"), None, TenantId(""), 0.0, 0)
    turns = [
        Turn(TurnArrived(TurnId(str(n)), SessionId("s"), 100, 1), session, 0.0) for n in range(4)
    ]
    for turn, weight, due_s in zip(
        turns, (4.0, 1.0, 3.0, 2.0), (9.0, 99.0, 5.0, 99.0), strict=True
    ):
        held.add(turn, weight, due_s)
    assert [t.turn_id for t, _ in held.first(4, 0.0)] == ["1", "3", "2", "0"]
    assert [(t.turn_id, due) for t, due in held.first(3, 10.0)] == [
        ("2", True),
        ("0", True),
        ("1", False),
    ]
    assert held.remove(turns[1])
    assert not held.remove(turns[1])
    assert [t.turn_id for t, _ in held.first(2, 0.0)] == ["3", "2"]


def test_a_tenant_that_holds_more_than_its_share_counts_for_more_until_it_is_forgotten() -> None:
    shares = TenantShares()
    heavy, light = TenantId("heavy"), TenantId("light")
    assert shares.excess(heavy, 0.0) == 1.0
    shares.change(heavy, 300, 0.0)
    shares.change(light, 100, 0.0)
    assert shares.excess(heavy, 100.0) == pytest.approx(1.5)
    assert shares.excess(light, 100.0) == 1.0
    shares.change(heavy, -300, 100.0)
    assert shares.excess(heavy, 100.0 + 20 * HALF_LIFE_S) == pytest.approx(1.0, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_life_of_sessions_leaves_no_room_taken_and_no_turn_behind(data: st.DataObject) -> None:
    rack = Driver(3, 60_000, PanjiuSettings(patience=5.0))
    running: dict[str, int] = {}
    waiting: dict[str, int] = {}
    sizes = st.integers(100, 50_000)
    for _ in range(data.draw(st.integers(1, 30))):
        rack.wake(data.draw(st.sampled_from([0.01, 1.0, 60.0])))
        session = data.draw(st.sampled_from("abcdef"))
        prompt = data.draw(sizes)
        turn = rack.arrive(session, prompt, data.draw(st.integers(0, 1)) * (prompt // BLOCK // 2))
        waiting[turn] = prompt
        for name in [name for name in waiting if name in rack.where]:
            running[name] = waiting.pop(name)
        if running and data.draw(sizes) % 2:
            name = data.draw(st.sampled_from(sorted(running)))
            rack.prefill(name)
            rack.end(name, running.pop(name) + 10)
    for _ in range(2000):
        for name in [name for name in waiting if name in rack.where]:
            running[name] = waiting.pop(name)
        if not running and not waiting:
            break
        if running:
            name, prompt = running.popitem()
            rack.prefill(name)
            rack.end(name, prompt + 10)
        rack.wake(1.0)
    assert not waiting
    for session in "abcdef":
        rack.close(session)
    assert rack.policy.ledger.used_blocks.loads == [0, 0, 0]
    assert rack.scheduler.num_sessions == 0


def test_a_fork_begins_where_its_trunk_is_though_others_are_idler() -> None:
    rack = Driver(4, 2_000_000)
    shared = 100_000 // BLOCK
    home = rack.run("plan", 100_000, shared=shared)
    forks = [rack.arrive(f"f{number}", 100_100, shared=shared) for number in range(3)]
    for fork in forks:
        rack.wake()
        rack.prefill(fork)
    assert [rack.where[fork] for fork in forks] == [home] * 3


def test_a_fork_waits_for_its_busy_trunk_where_computing_it_anew_takes_longer() -> None:
    rack = Driver(2, 4_000_000)
    shared = 400_000 // BLOCK
    home = rack.run("plan", 400_000, shared=shared)
    busy = rack.arrive("plan", 500_000, shared=shared)
    assert rack.where[busy] == home
    fork = rack.arrive("fork", 400_100, shared=shared)
    assert fork not in rack.where
    rack.wake()
    rack.prefill(busy)
    assert rack.where[fork] == home
