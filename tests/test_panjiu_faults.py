"""Panjiu's policy when replicas go and come back, and when long prefills meet turns that decode."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch, Pull
from scheduler.events import (
    GapCause,
    GapHint,
    PrefillEnded,
    ReplicaDown,
    ReplicaUp,
    TurnArrived,
    TurnEnded,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.load_order import LoadOrder
from scheduler.panjiu.policy import Panjiu
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.policies import POLICIES, make_policy
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup
from tests.panjiu_driver import BLOCK, Driver, first_hash
from tests.racks import cost_model, policy_setup

SOON = GapHint(GapCause.TOOL, expected_s=1.0)


def long_prompt(at_least_s: float) -> int:
    """Return a prompt that takes so long to compute."""
    tokens = 10_000
    while cost_model().prefill_s(0, tokens) < at_least_s:
        tokens += 10_000
    return tokens


def test_a_long_prefill_waits_until_nobody_decodes_on_its_replica() -> None:
    prompt = long_prompt(10.0)
    rack = Driver(1, 4 * prompt)
    small = rack.arrive("small", 1_000)
    rack.prefill(small)
    large = rack.arrive("large", prompt)
    assert large not in rack.where
    rack.end(small, 1_010)
    assert rack.where[large] == 0


def test_it_waits_for_a_share_of_its_own_length_at_most() -> None:
    prompt = long_prompt(10.0)
    rack = Driver(1, 4 * prompt, PanjiuSettings(drain_share=0.2))
    small = rack.arrive("small", 1_000)
    rack.prefill(small)
    large = rack.arrive("large", prompt)
    limit_s = 0.2 * cost_model().prefill_s(0, prompt)
    assert rack.scheduler.next_wake_s == pytest.approx(limit_s, rel=0.01)
    rack.wake(limit_s * 1.01)
    assert rack.where[large] == 0


def test_nobody_is_sent_to_a_replica_that_drains_for_a_long_prefill() -> None:
    prompt = long_prompt(10.0)
    rack = Driver(2, 4 * prompt)
    decoding = [rack.arrive(name, 1_000) for name in "ab"]
    for turn in decoding:
        rack.prefill(turn)
    assert {rack.where[turn] for turn in decoding} == {0, 1}
    rack.arrive("large", prompt)
    later = [rack.arrive(f"later{n}", 1_000) for n in range(3)]
    sent = {rack.where[turn] for turn in later if turn in rack.where}
    assert len(sent) == 1
    rack.end(decoding[1 - rack.where[decoding[0]]], 1_010)


def test_a_long_prefill_that_is_withdrawn_while_it_waits_leaves_nothing() -> None:
    prompt = long_prompt(10.0)
    rack = Driver(1, 4 * prompt)
    small = rack.arrive("small", 1_000)
    rack.prefill(small)
    large = rack.arrive("large", prompt)
    rack.end(large, prompt)
    rack.end(small, 1_010)
    assert large not in rack.where
    for session in ("small", "large"):
        rack.close(session)
    assert rack.policy.ledger.used_blocks.loads == [0]


def test_a_session_that_was_paused_often_enough_goes_before_everybody() -> None:
    rack = Driver(1, 100_000, PanjiuSettings(most_pauses=0, patience=1e6))
    for name in "ab":
        rack.run(name, 45_000, SOON)
    turn = rack.arrive("new", 60_000)
    rack.wake(1.0)
    assert turn in rack.where, "those who were idle had to leave"


def test_what_a_lost_replica_held_is_computed_elsewhere() -> None:
    rack = Driver(2, 200_000)
    home = rack.run("a", 20_000)
    assert rack.down(home) == ["a#1"]
    assert rack.policy.ledger.residents[home] == {}
    assert rack.run("a", 20_900) == 1 - home
    rack.up(home)
    rack.down(1 - home)
    assert rack.run("a", 21_800) == home


def test_a_turn_on_its_way_to_a_replica_that_is_lost_goes_elsewhere() -> None:
    rack = Driver(3, 2_000_000)
    home = rack.run("a", 100_000)
    busy = rack.arrive("b", 1_000)
    while rack.where[busy] != home:
        rack.prefill(busy)
        busy = rack.arrive(f"b{len(rack.num_turns)}", 1_000)
    rack.prefill(busy)
    turn = TurnId("a#2")
    commands = rack.say(turn, "a", range(first_hash("a"), first_hash("a") + 1576))
    pulls = [command for command in commands if isinstance(command, Pull)]
    assert pulls, "where nobody decodes it costs less"
    rack.down(pulls[0].replica_id)
    rack.wake(60.0)
    assert rack.where[turn] not in rack.downs


class ForgetfulProbe:
    """Replicas that evict by themselves: what they have is what they say."""

    def __init__(self) -> None:
        self.num_blocks = [0, 0]

    def num_waiting(self, replica_id: ReplicaId) -> int:
        return 0

    def num_running(self, replica_id: ReplicaId) -> int:
        return 0

    def kv_usage(self, replica_id: ReplicaId) -> float:
        return 0.0

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return self.num_blocks[replica_id]

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return 0


@pytest.mark.parametrize("has_kv", [True, False])
def test_a_turn_waits_for_its_busy_replica_only_if_that_says_it_has_the_kv(has_kv: bool) -> None:
    probe = ForgetfulProbe()
    fleet = ReplicaFleet(2, 400_000, retains_kv=False)
    policy = Panjiu(PolicySetup(fleet, cost_model()))
    scheduler = ClusterScheduler(fleet, policy, probe=probe)

    def sent_to(name: str, prompt: int, now_s: float) -> int | None:
        own = first_hash(name)
        hashes = range(own, own + prompt // BLOCK)
        turn = TurnArrived(
            TurnId(f"{name}@{now_s}"), SessionId(name), prompt, 10, block_hashes=hashes
        )
        sent = [c for c in scheduler.handle(turn, now_s) if isinstance(c, Dispatch)]
        return sent[0].replica_id if sent else None

    home = sent_to("s", 100_000, 0.0)
    scheduler.handle(PrefillEnded(TurnId("s@0.0"), 0), 1.0)
    scheduler.handle(TurnEnded(TurnId("s@0.0"), 100_010), 2.0)
    assert home == 0
    assert sent_to("busy", 40_000, 3.0) == home
    probe.num_blocks[home] = 1_560 if has_kv else 0
    assert sent_to("s", 100_100, 3.1) == (None if has_kv else 1)


def test_turns_wait_while_all_replicas_are_down() -> None:
    rack = Driver(2, 200_000)
    for replica in range(2):
        rack.down(replica)
    turn = rack.arrive("a", 20_000)
    rack.wake(100.0)
    assert turn not in rack.where
    rack.up(1)
    assert rack.where[turn] == 1


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"clairvoyant"}))
def test_no_policy_sends_turns_to_a_replica_that_is_down(policy: str) -> None:
    setup = policy_setup(3, 200_000)
    scheduler = ClusterScheduler(setup.fleet, make_policy(policy, setup))
    scheduler.handle(ReplicaDown(ReplicaId(0)), 0.0)
    sent: list[int] = []

    def note(commands: object) -> None:
        assert isinstance(commands, tuple)
        sent.extend(c.replica_id for c in commands if isinstance(c, Dispatch))

    for number in range(8):
        hashes = range(number << 32, (number << 32) + 20)
        arrived = TurnArrived(
            TurnId(f"t{number}"), SessionId(f"s{number}"), 1_300, 10, block_hashes=hashes
        )
        note(scheduler.handle(arrived, 1.0))
        scheduler.check_invariants()
    assert 0 not in sent
    note(scheduler.handle(ReplicaUp(ReplicaId(0)), 2.0))
    scheduler.check_invariants()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "close", "open"]), st.integers(0, 4), st.integers(-3, 9)),
        max_size=60,
    )
)
def test_the_least_loaded_is_the_least_of_the_open_ones(
    changes: list[tuple[str, int, int]],
) -> None:
    order, closed = LoadOrder(5), set[int]()
    for what, replica, amount in changes:
        if what == "add":
            order.add(ReplicaId(replica), amount)
        elif what == "close":
            order.close(ReplicaId(replica))
            closed.add(replica)
        else:
            order.open(ReplicaId(replica))
            closed.discard(replica)
        there = [n for n in range(5) if n not in closed] or list(range(5))
        assert order.least() == min(there, key=lambda n: (order.loads[n], n))


class MortalRack(Driver):
    """Replicas that may be lost, and sessions that have the turns they lose run again."""

    def __init__(self) -> None:
        settings = PanjiuSettings(patience=5.0, drain_s=0.5, most_pauses=3)
        super().__init__(3, 60_000, settings)
        self.prompts: dict[str, int] = {}  # of turns that have not ended
        self.num_lost = 0

    def begin(self, session: str, prompt: int) -> None:
        self.prompts[self.arrive(session, prompt)] = prompt

    def running(self) -> list[str]:
        return sorted(turn for turn in self.prompts if turn in self.where)

    def finish(self, turn: str) -> None:
        self.prefill(turn)
        self.end(turn, self.prompts.pop(turn) + 10)

    def lose(self, replica: int) -> None:
        for turn in self.down(replica):
            if turn in self.prompts:
                prompt, session = self.prompts.pop(turn), turn.split("#")[0]
                self.end(turn, prompt)
                self.num_lost += 1
                again, own = f"{turn}/{self.num_lost}", first_hash(session)
                self.prompts[again] = prompt
                self.say(again, session, range(own, own + prompt // BLOCK), prompt)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_life_with_replicas_that_go_and_come_ends_with_nothing_held(
    data: st.DataObject,
) -> None:
    rack = MortalRack()
    for _ in range(data.draw(st.integers(1, 25))):
        rack.wake(data.draw(st.sampled_from([0.01, 1.0, 60.0])))
        what = data.draw(st.sampled_from(["arrive", "arrive", "end", "down", "up"]))
        if what == "arrive":
            rack.begin(data.draw(st.sampled_from("abcdef")), data.draw(st.integers(100, 50_000)))
        elif what == "end" and (running := rack.running()):
            rack.finish(data.draw(st.sampled_from(running)))
        elif what == "down":
            rack.lose(data.draw(st.integers(0, 2)))
        elif what == "up":
            rack.up(data.draw(st.integers(0, 2)))
    for replica in sorted(rack.downs):
        rack.up(replica)
    for _ in range(2000):
        for turn in rack.running()[:1]:
            rack.finish(turn)
        rack.wake(1.0)
    assert not rack.prompts
    for session in "abcdef":
        rack.close(session)
    assert rack.policy.ledger.used_blocks.loads == [0, 0, 0]
    assert rack.scheduler.num_sessions == 0
