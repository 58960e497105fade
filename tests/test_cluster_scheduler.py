"""The scheduler: events in, commands out, counters that always add up."""

from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch, Pull, Refuse, Release, Retain
from scheduler.errors import InvariantError, UnknownPolicyError
from scheduler.events import (
    Event,
    GapCause,
    GapHint,
    GapHinted,
    PrefillEnded,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.load_order import LoadOrder
from scheduler.policies import POLICIES, make_policy
from scheduler.rack import ReplicaFleet
from scheduler.session_view import SessionPhase
from tests.racks import policy_setup

LIMIT = 1000
MOST_WAKE_UPS = 2000
"""Those of half an hour, more than any policy makes a turn wait for."""
GAPS = [
    GapHint(),
    GapHint(GapCause.TOOL),
    GapHint(GapCause.TOOL, ("grep",)),
    GapHint(GapCause.HUMAN),
    GapHint(GapCause.CHILDREN),
]


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
    commands = scheduler.handle(TurnEnded(TurnId(turn), tokens), now_s)
    assert all(isinstance(command, Retain | Release) for command in commands)


def test_a_hint_replaces_what_is_known_of_a_gap_and_comes_too_late_for_one_that_is_over() -> None:
    scheduler = cluster()
    session, hint = SessionId("a"), GapHint(GapCause.TOOL, ("make",), expected_s=90.0)
    assert scheduler.session_view(session) is None
    assert not scheduler.handle(GapHinted(session, hint), 0.0), "nothing is known of it"
    replica = arrive(scheduler, "a", "t1")
    running = scheduler.session_view(session)
    assert running is not None
    assert (running.phase, running.home) == (SessionPhase.RUNNING, replica)
    scheduler.handle(GapHinted(session, hint), 1.0)
    end(scheduler, "t1", now_s=2.0)
    gap = scheduler.session_view(session)
    assert gap is not None
    assert (gap.phase, gap.gap, gap.last_ended_s) == (SessionPhase.GAP, GapHint(), 2.0)
    assert (gap.context_tokens, gap.num_turns_ended) == (110, 1)
    scheduler.handle(GapHinted(session, hint), 3.0)
    hinted = scheduler.session_view(session)
    assert hinted is not None
    assert hinted.gap == hint
    scheduler.check_invariants()


def test_a_session_whose_turns_are_all_held_is_held() -> None:
    scheduler = cluster("panjiu", 1)
    name, num_arrived = "", 0
    while not scheduler.num_held_turns:
        assert num_arrived < 1000
        name = f"s{num_arrived}"
        scheduler.handle(TurnArrived(TurnId(name), SessionId(name), 900, 10), 0.0)
        num_arrived += 1
    held = scheduler.session_view(SessionId(name))
    assert held is not None
    assert (held.phase, held.home) == (SessionPhase.HELD, None)


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


def test_a_home_for_life_is_kept_however_busy_it_is() -> None:
    scheduler = cluster("home_for_life", 2)
    home = arrive(scheduler, "a", "a0", prompt=500)
    end(scheduler, "a0", 510)
    for number in range(6):
        arrive(scheduler, f"s{number}", f"t{number}", prompt=300)
    assert arrive(scheduler, "a", "a1", prompt=520) == home


def test_a_home_for_life_is_where_least_context_lives_at_birth() -> None:
    scheduler = cluster("home_for_life", 2)
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
    with pytest.raises(
        UnknownPolicyError, match=r"'magic'; known: clairvoyant, concur, consistent_hash"
    ):
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


class WhimsicalProbe:
    """Replicas that report anything, so that no policy can hang on what they say."""

    def __init__(self, kv_usage: float, num_waiting: int, num_cached_blocks: int) -> None:
        self._kv_usage = kv_usage
        self._num_waiting = num_waiting
        self._num_cached_blocks = num_cached_blocks

    def num_waiting(self, replica_id: ReplicaId) -> int:
        return self._num_waiting

    def num_running(self, replica_id: ReplicaId) -> int:
        return self._num_waiting

    def kv_usage(self, replica_id: ReplicaId) -> float:
        return self._kv_usage

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return min(self._num_cached_blocks, len(block_hashes))

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return 0


probes = st.none() | st.builds(
    WhimsicalProbe, st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.integers(0, 3), st.integers(0, 9)
)


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of arrivals, ends, closes and wake-ups, under every policy.

    Held turns are allowed: they leave when a turn ends or a wake-up comes, each of them once.
    """

    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        probe=probes,
        num_replicas=st.sampled_from([1, 4]),
        host_kv=st.sampled_from([0, 5000]),
    )
    def start(
        self, policy: str, probe: WhimsicalProbe | None, num_replicas: int, host_kv: int
    ) -> None:
        setup = policy_setup(num_replicas, LIMIT, host_kv)
        self.scheduler = ClusterScheduler(setup.fleet, make_policy(policy, setup), probe=probe)
        self.num_replicas = num_replicas
        self.now_s = 0.0
        self.held: dict[str, int] = {}
        self.active: dict[str, int] = {}
        self.count = 0

    def handle(self, event: Event) -> None:
        """Hand in an event and take note of what is to be done."""
        for command in self.scheduler.handle(event, self.now_s):
            assert not isinstance(command, Refuse)
            assert 0 <= command.replica_id < self.num_replicas
            match command:
                case Dispatch():
                    self.active[command.turn_id] = self.held.pop(command.turn_id)
                case Pull():
                    assert command.source_id != command.replica_id
                    assert command.ready_s >= self.now_s
                case _:
                    assert command.session_id.startswith("s")

    @rule(session=st.integers(0, 6), prompt=st.integers(1, 1200))
    def a_turn_arrives(self, session: int, prompt: int) -> None:
        self.count += 1
        turn_id = TurnId(f"t{self.count}")
        blocks = tuple((session << 32) + block for block in range(prompt // 64))
        event = TurnArrived(turn_id, SessionId(f"s{session}"), prompt, 10, block_hashes=blocks)
        if prompt + 10 > LIMIT:
            refusal = Refuse(turn_id, prompt + 10, LIMIT)
            assert self.scheduler.handle(event, self.now_s) == (refusal,)
            return
        self.held[turn_id] = prompt
        self.handle(event)

    @precondition(lambda self: self.active)
    @rule(data=st.data(), num_cached=st.integers(0, 500))
    def a_turn_has_its_first_token(self, data: st.DataObject, num_cached: int) -> None:
        turn = data.draw(st.sampled_from(sorted(self.active)))
        self.handle(PrefillEnded(TurnId(turn), min(num_cached, self.active[turn])))

    @precondition(lambda self: self.active)
    @rule(data=st.data(), generated=st.integers(0, 10), gap=st.sampled_from(GAPS))
    def a_turn_ends(self, data: st.DataObject, generated: int, gap: GapHint) -> None:
        turn = data.draw(st.sampled_from(sorted(self.active)))
        self.handle(TurnEnded(TurnId(turn), self.active.pop(turn) + generated, gap))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_held_turn_is_withdrawn(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from(sorted(self.held)))
        self.handle(TurnEnded(TurnId(turn), self.held.pop(turn)))

    @rule(session=st.integers(0, 6))
    def a_session_closes(self, session: int) -> None:
        self.handle(SessionClosed(SessionId(f"s{session}")))

    @rule(session=st.integers(0, 6), gap=st.sampled_from([*GAPS, GapHint(expected_s=5.0)]))
    def more_is_known_of_a_gap(self, session: int, gap: GapHint) -> None:
        self.handle(GapHinted(SessionId(f"s{session}"), gap))

    @rule(seconds=st.sampled_from([0.01, 1.0, 7.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while (wake_s := self.scheduler.next_wake_s) is not None and wake_s <= until_s:
            self.wake(wake_s)
        self.now_s = until_s

    def wake(self, wake_s: float) -> None:
        """Deliver the wake-up that is due; it must not ask for itself again."""
        self.now_s = max(self.now_s, wake_s)
        self.handle(Woken())
        next_s = self.scheduler.next_wake_s
        assert next_s is None or next_s > self.now_s

    @rule()
    def somebody_wakes_it_for_nothing(self) -> None:
        self.handle(Woken())

    @invariant()
    def the_counters_add_up(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check_invariants()
            assert self.scheduler.num_held_turns == len(self.held)

    @override
    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(MOST_WAKE_UPS):
            for turn in sorted(self.active):
                self.handle(TurnEnded(TurnId(turn), self.active.pop(turn)))
            if self.active:
                continue
            if not self.held:
                break
            wake_s = self.scheduler.next_wake_s
            assert wake_s is not None, "held for ever"
            self.wake(wake_s)
        assert not self.held, "held for too long"
        for session in range(7):
            self.handle(SessionClosed(SessionId(f"s{session}")))
        for _ in range(MOST_WAKE_UPS):
            if (wake_s := self.scheduler.next_wake_s) is None:
                break
            self.wake(wake_s)
        assert self.scheduler.next_wake_s is None, "a simulation would never end"
        assert self.scheduler.num_sessions == 0


TestSchedulerLives = SchedulerMachine.TestCase
