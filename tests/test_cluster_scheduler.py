"""The scheduler: events in, commands out, counters that always add up."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch, Refuse
from scheduler.errors import InvariantError, UnknownPolicyError
from scheduler.events import SessionClosed, TurnArrived, TurnEnded
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.load_order import LoadOrder
from scheduler.policies import POLICIES, make_policy
from scheduler.rack import ReplicaFleet
from tests.racks import policy_setup

LIMIT = 1000


def cluster(policy: str = "panjiu", num_replicas: int = 4) -> ClusterScheduler:
    return ClusterScheduler(
        ReplicaFleet(num_replicas, LIMIT), make_policy(policy, policy_setup(num_replicas, LIMIT))
    )


def arrive(
    scheduler: ClusterScheduler, session: str, turn: str, prompt: int = 100, now_s: float = 0.0
) -> int:
    event = TurnArrived(TurnId(turn), SessionId(session), prompt, 10)
    (command,) = scheduler.handle(event, now_s)
    assert isinstance(command, Dispatch)
    return command.replica_id


def end(scheduler: ClusterScheduler, turn: str, tokens: int = 110, now_s: float = 0.0) -> None:
    assert scheduler.handle(TurnEnded(TurnId(turn), tokens), now_s) == ()


def test_round_robin_goes_round_whoever_asks() -> None:
    scheduler = cluster("round_robin", 3)
    assert [arrive(scheduler, "a", f"t{n}") for n in range(5)] == [0, 1, 2, 0, 1]


def test_least_loaded_counts_active_turns_only() -> None:
    scheduler = cluster("least_loaded", 3)
    assert [arrive(scheduler, f"s{n}", f"t{n}") for n in range(3)] == [0, 1, 2]
    end(scheduler, "t1")
    assert arrive(scheduler, "s9", "t9") == 1


def test_consistent_hash_is_sticky_and_moves_few_sessions_when_a_replica_is_added() -> None:
    before, after = cluster("consistent_hash", 8), cluster("consistent_hash", 9)
    homes = [
        (arrive(before, f"s{n}", f"t{n}"), arrive(after, f"s{n}", f"t{n}")) for n in range(400)
    ]
    assert arrive(before, "s7", "again") == homes[7][0]
    moved = [new for old, new in homes if old != new]
    assert set(moved) == {8}, "only to the new replica"
    assert len(moved) < 400 / 8 * 2


def test_panjiu_keeps_a_session_with_its_kv_however_busy_its_home() -> None:
    scheduler = cluster("panjiu", 2)
    home = arrive(scheduler, "a", "a0", prompt=500)
    end(scheduler, "a0", 510)
    for number in range(6):
        arrive(scheduler, f"s{number}", f"t{number}", prompt=300)
    assert arrive(scheduler, "a", "a1", prompt=520) == home


def test_panjiu_gives_a_new_session_the_replica_with_the_least_context() -> None:
    scheduler = cluster("panjiu", 2)
    assert arrive(scheduler, "long", "t0", prompt=900) == 0
    assert arrive(scheduler, "short 1", "t1", prompt=100) == 1
    assert arrive(scheduler, "short 2", "t2", prompt=100) == 1
    end(scheduler, "t0", 910)
    scheduler.handle(SessionClosed(SessionId("long")), 0.0)
    assert arrive(scheduler, "short 3", "t3", prompt=100) == 0


def test_a_context_longer_than_a_replica_holds_is_refused_with_both_numbers() -> None:
    event = TurnArrived(TurnId("t"), SessionId("s"), LIMIT - 5, 6)
    assert cluster().handle(event, 0.0) == (Refuse(TurnId("t"), LIMIT + 1, LIMIT),)


def test_contradictory_events_are_refused_loudly() -> None:
    scheduler = cluster()
    arrive(scheduler, "a", "t", now_s=5.0)
    with pytest.raises(InvariantError, match="arrived twice"):
        arrive(scheduler, "a", "t", now_s=5.0)
    with pytest.raises(InvariantError, match="time went back"):
        end(scheduler, "t", now_s=4.0)
    with pytest.raises(InvariantError, match="was not active"):
        end(scheduler, "never", now_s=5.0)


def test_a_session_closed_while_it_runs_is_forgotten_when_its_turn_ends() -> None:
    scheduler = cluster()
    arrive(scheduler, "a", "t")
    scheduler.handle(SessionClosed(SessionId("a")), 0.0)
    assert scheduler.num_sessions == 1
    end(scheduler, "t")
    assert scheduler.num_sessions == 0
    scheduler.check_invariants()


def test_an_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(UnknownPolicyError, match=r"'magic'; known: .*consistent_hash, .*least_loaded"):
        make_policy("magic", policy_setup(4, LIMIT))


class LoadOrderMachine(RuleBasedStateMachine):
    @initialize(num_replicas=st.integers(1, 5))
    def start(self, num_replicas: int) -> None:
        self.order = LoadOrder(num_replicas)

    @rule(data=st.data(), amount=st.integers(-3, 3))
    def add(self, data: st.DataObject, amount: int) -> None:
        replica = data.draw(st.integers(0, len(self.order.loads) - 1))
        self.order.add(ReplicaId(replica), amount)

    @invariant()
    def least_is_least_and_ties_go_to_the_lowest_id(self) -> None:
        loads = self.order.loads
        assert self.order.least() == loads.index(min(loads))


TestLoadOrder = LoadOrderMachine.TestCase


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of arrivals, ends and closes, under every policy."""

    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def start(self, policy: str) -> None:
        self.scheduler = cluster(policy)
        self.active: list[tuple[str, int]] = []
        self.count = 0

    @rule(session=st.integers(0, 4), prompt=st.integers(1, 1200))
    def a_turn_arrives(self, session: int, prompt: int) -> None:
        self.count += 1
        event = TurnArrived(TurnId(f"t{self.count}"), SessionId(f"s{session}"), prompt, 10)
        (command,) = self.scheduler.handle(event, float(self.count))
        if isinstance(command, Dispatch):
            assert 0 <= command.replica_id < 4
            self.active.append((event.turn_id, prompt))
        else:
            assert prompt + 10 > LIMIT

    @precondition(lambda self: self.active)
    @rule(data=st.data(), generated=st.integers(0, 10))
    def a_turn_ends(self, data: st.DataObject, generated: int) -> None:
        turn, prompt = self.active.pop(data.draw(st.integers(0, len(self.active) - 1)))
        end(self.scheduler, turn, prompt + generated, float(self.count))

    @rule(session=st.integers(0, 4))
    def a_session_closes(self, session: int) -> None:
        self.scheduler.handle(SessionClosed(SessionId(f"s{session}")), float(self.count))

    @invariant()
    def the_counters_add_up(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check_invariants()


TestSchedulerLives = SchedulerMachine.TestCase
