"""The routers: each one's formula by hand, and what no order of turns may break."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch
from scheduler.events import PrefillEnded, SessionClosed, TurnArrived, TurnEnded
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.placement.kv_cost import TUNED_PREFILL_SCALE, KvCost
from scheduler.placement.llmd_default import LlmdDefault
from scheduler.placement.lmetric import LMetric
from scheduler.placement.power_of_two import PowerOfTwo
from scheduler.placement.prefix_affinity import PrefixAffinity
from scheduler.placement.sticky_least_loaded import StickyLeastLoaded, rendezvous_weight
from scheduler.policies import make_policy
from scheduler.policy import PlaceAndRemember, Placement
from scheduler.rack import ReplicaFleet
from tests.placement_racks import PlacementRack, ToldProbe, chain_of, own_chain
from tests.racks import policy_setup

NAMES = [
    "power_of_two",
    "sticky_least_loaded",
    "prefix_affinity",
    "kv_cost",
    "kv_cost_tuned",
    "lmetric",
    "llmd_default",
]


# power_of_two


def test_power_of_two_draws_different_replicas_and_takes_the_less_loaded() -> None:
    """P(the least loaded of 4 is one of 2 drawn) = 1/2; the most loaded always meets a lesser."""
    rack = PlacementRack(4)
    for replica in range(4):
        rack.occupy(replica, 3 - replica)
    policy = PowerOfTwo(seed=3)
    turn = rack.turn("s", 100)
    chosen = [policy.place(turn, turn.session, rack.rack).replica_id for _ in range(600)]
    assert 0 not in chosen
    assert 260 < chosen.count(ReplicaId(3)) < 340
    assert 160 < chosen.count(ReplicaId(2)) < 240, "1/3: with 0 or 1 and without 3"


def test_power_of_two_draws_the_same_for_the_same_seed_and_needs_no_second_replica() -> None:
    def draws(seed: int) -> list[int]:
        rack, policy = PlacementRack(8), PowerOfTwo(seed)
        turn = rack.turn("s", 100)
        return [policy.place(turn, turn.session, rack.rack).replica_id for _ in range(30)]

    assert draws(1) == draws(1) != draws(2)
    single = PlacementRack(1)
    assert single.place(PowerOfTwo(0), single.turn("s", 100)) == (0, 0)


# sticky_least_loaded


def test_a_new_session_goes_where_the_fewest_live_in_gaps_too() -> None:
    """``test_new_sessions_balance_across_replicas`` and ``test_finish_session_releases_capacity``
    of vllm-router 0.1.17: three sessions on three replicas; one finished makes room for the next.
    """
    rack, policy = PlacementRack(3), StickyLeastLoaded(3)
    homes = [rack.place(policy, rack.turn(f"s{n}", 100)).replica_id for n in range(3)]
    assert sorted(homes) == [0, 1, 2]
    policy.session_closed(rack.sessions["s1"], rack.rack)
    rack.occupy(homes[1], 9)
    assert rack.place(policy, rack.turn("s3", 100)).replica_id == homes[1], "sessions, not turns"
    assert rack.place(policy, rack.turn("s0", 100)).replica_id == homes[0]


def test_ties_go_to_the_strongest_rendezvous_weight_whatever_came_before() -> None:
    homes = set()
    for name in ("a", "b", "c", "d", "e", "f"):
        rack, policy = PlacementRack(4), StickyLeastLoaded(4)
        home = rack.place(policy, rack.turn(name, 100)).replica_id
        weights = [rendezvous_weight(SessionId(name), ReplicaId(r)) for r in range(4)]
        assert home == weights.index(max(weights))
        homes.add(home)
    assert len(homes) > 1


# prefix_affinity


def test_without_a_match_the_smallest_tree_is_taken_and_with_one_it_is_followed() -> None:
    """Trees of 10 and 5 blocks: the next stranger goes to the second, whoever is busy."""
    rack = PlacementRack(2)
    policy = PrefixAffinity(rack.fleet)
    assert rack.place(policy, rack.turn("a", 640, own_chain(1, 10))) == (0, 0)
    assert rack.place(policy, rack.turn("b", 320, own_chain(2, 5))) == (1, 0)
    rack.occupy(1, 7)
    assert rack.place(policy, rack.turn("c", 64, own_chain(3, 1))) == (1, 0)
    longer = own_chain(1, 12)
    assert rack.place(policy, rack.turn("a", 800, longer)) == (0, 640)


def test_half_a_match_is_no_match_and_of_equal_matches_the_less_loaded_wins() -> None:
    """0.5 must be exceeded: 10 of 20 blocks are not followed, 10 of 19 are."""
    rack = PlacementRack(3)
    policy = PrefixAffinity(rack.fleet)
    trunk = own_chain(1, 10)
    rack.place(policy, rack.turn("a", 640, trunk))
    half = [*trunk, *own_chain(2, 10)]
    assert rack.place(policy, rack.turn("b", 1280, half)) == (1, 0)
    rack.occupy(0, 2)
    more = [*trunk, *own_chain(3, 9)]
    assert rack.place(policy, rack.turn("c", 1216, more)) == (1, 640), "0 matches as much"


@pytest.mark.parametrize(("num_busy", "replica"), [(64, 0), (65, 1)])
def test_more_than_64_turns_more_are_out_of_balance(num_busy: int, replica: int) -> None:
    """``max - min > 64`` and ``max > 1.5 min``: then load decides, and the tree still learns."""
    rack = PlacementRack(2)
    policy = PrefixAffinity(rack.fleet)
    turn = rack.turn("a", 640, own_chain(1, 10))
    rack.place(policy, turn)
    rack.rack.end_turn(turn, 640)
    rack.occupy(0, num_busy)
    assert rack.place(policy, rack.turn("a", 640, own_chain(1, 10))).replica_id == replica
    rack.occupy(1, num_busy)
    assert rack.place(policy, rack.turn("a", 640, own_chain(1, 10))).num_cached_tokens == 640


def test_210_against_140_is_balanced_by_the_ratio() -> None:
    rack = PlacementRack(2)
    policy = PrefixAffinity(rack.fleet)
    rack.place(policy, rack.turn("a", 640, own_chain(1, 10)))
    rack.occupy(0, 209)
    rack.occupy(1, 140)
    assert rack.place(policy, rack.turn("a", 640, own_chain(1, 10))) == (0, 640), "210 = 1.5 x 140"


# kv_cost


def three_workers(policy: KvCost) -> PlacementRack:
    """Workers with 10, 5 and 9 active blocks, and 2, 5 and 8 of a prompt of 10 cached."""
    rack = PlacementRack(3)
    for replica, num_blocks in enumerate((10, 5, 9)):
        chain = own_chain(10 + replica, num_blocks)
        rack.cache(replica, chain)
        turn = rack.turn(f"filler {replica}", num_blocks * 64, chain)
        assert rack.place(policy, turn).replica_id == replica
    for replica, num_blocks in enumerate((2, 5, 8)):
        rack.cache(replica, own_chain(1, num_blocks))
    return rack


@pytest.mark.parametrize(
    ("scale", "placement"), [(1.0, (1, 5 * 64)), (TUNED_PREFILL_SCALE, (2, 8 * 64))]
)
def test_dynamo_adds_blocks_to_prefill_and_blocks_to_decode_with(
    scale: float, placement: Placement
) -> None:
    """Dynamo's documentation, KV routing: overlaps 2, 5, 8 of 10 and decode 10, 5, 9 cost 18, 10
    and 11, so worker 2 of 3. Its code adds the request's own 10 blocks to each: 28, 20, 21. With a
    prefill scale of 20: 180, 115, 59.
    """
    policy = KvCost(PlacementRack(3).fleet, seed=0, prefill_scale=scale)
    rack = three_workers(policy)
    assert rack.place(policy, rack.turn("s", 640, own_chain(1, 10))) == placement


def test_dynamo_counts_a_block_in_host_memory_for_three_quarters() -> None:
    """10 blocks: 2 in HBM and 6 in host memory are 2 + 4.5 = 6.5 and beat 6 in HBM, not 7."""
    for num_device, replica in ((6, 0), (7, 1)):
        rack = PlacementRack(2)
        chain = own_chain(1, 10)
        rack.cache(0, chain[:2], chain[:8])
        rack.cache(1, chain[:num_device])
        placement = rack.place(KvCost(rack.fleet, 0), rack.turn("s", 640, chain))
        assert placement == (replica, 416 if replica == 0 else 448)


def test_dynamo_counts_what_is_still_to_be_prefilled() -> None:
    """6 of 10 blocks cached behind 448 tokens to prefill: 4 + 7 + 10 > 10 + 10 elsewhere."""
    for tokens, replica in ((448, 1), (320, 0)):
        rack = PlacementRack(2)
        rack.occupy(0, 1, tokens)
        rack.cache(0, own_chain(1, 6))
        policy = KvCost(rack.fleet, 0)
        assert rack.place(policy, rack.turn("s", 640, own_chain(1, 10))).replica_id == replica


def test_dynamo_counts_active_blocks_that_are_shared_once() -> None:
    """Two turns of 8 blocks with a trunk of 6: 8 and 2 more where the first is, 8 elsewhere, so
    that half a block of prefill less there would not do without the trunk.
    """
    rack = PlacementRack(2)
    policy = KvCost(rack.fleet, 0)
    trunk = own_chain(1, 6)
    rack.cache(0, trunk)
    first = rack.turn("a", 512, [*trunk, *own_chain(2, 2)])
    assert rack.place(policy, first).replica_id == 0
    rack.rack.end_prefill(first)
    # 2 to prefill + 10 active = 12 on 0; 8 + 8 = 16 on 1. Unshared: 2 + 16 = 18 > 16.
    second = rack.turn("b", 512, [*trunk, *own_chain(3, 2)])
    assert rack.place(policy, second) == (0, 6 * 64)
    rack.rack.end_prefill(second)
    for turn in (first, second):
        rack.rack.end_turn(turn, 512)
        policy.turn_ended(turn, rack.rack)
    stranger = rack.turn("c", 512, own_chain(4, 8))
    rack.occupy(1, 1, 1)
    assert rack.place(policy, stranger).replica_id == 0, "all active blocks are gone"


def test_dynamo_takes_any_of_equals_and_goes_by_load_without_events() -> None:
    """As ``test_default_selector_randomizes_zero_temperature_ties`` there."""
    rack = PlacementRack(3)
    policy = KvCost(rack.fleet, 0)
    turn = rack.turn("s", 640, own_chain(1, 10))
    chosen = set()
    for _ in range(40):
        chosen.add(policy.place(turn, turn.session, rack.rack).replica_id)
        policy.turn_ended(turn, rack.rack)
    assert chosen == {0, 1, 2}
    rack.cache(2, own_chain(1, 10))
    rack.rack.probe = None
    rack.occupy(0, 1, 64)
    rack.occupy(2, 1, 64)
    assert rack.place(policy, turn) == (1, 0)


# lmetric


def test_lmetric_charges_an_idle_cold_replica_for_the_prompt() -> None:
    """``idle_cold_worker_is_charged_for_candidate_prefill`` of vllm-router 0.1.17: 2,468 blocks of
    16 cached behind one request cost (40,000 - 39,488) x 2 = 1,024; cold costs 40,000.
    """
    rack = PlacementRack(2, block=16)
    rack.occupy(1, 1)
    rack.cache(1, own_chain(1, 2468))
    assert rack.place(LMetric(), rack.turn("s", 40_000, own_chain(1, 2500))) == (1, 39_488)


@pytest.mark.parametrize(("num_requests", "placement"), [(3, (0, 131)), (4, (1, 0))])
def test_lmetric_credits_the_host_and_multiplies(num_requests: int, placement: Placement) -> None:
    """As ``two_segment_credit_uses_device_and_one_continuation`` there, at its default credit:
    160 - (5 + 0.8 x 4) x 16 = 28.8, so 29 new and 7 under way. (29 + 7) x 4 = 144 < 160 < 180.
    """
    rack = PlacementRack(2, block=16)
    chain = own_chain(1, 10)
    rack.cache(0, chain[:5], chain[:9])
    rack.occupy(0, num_requests, 7)
    assert rack.place(LMetric(), rack.turn("s", 160, chain)) == placement


def test_lmetric_always_computes_the_last_block_and_goes_by_load_without_events() -> None:
    """All 10 of 10 blocks cached: 144 tokens count. Nobody listens: (160 + 0) x (0 + 1) wins."""
    rack = PlacementRack(2, block=16)
    chain = own_chain(1, 10)
    rack.cache(1, chain)
    turn = rack.turn("s", 160, chain)
    assert LMetric().place(turn, turn.session, rack.rack) == (1, 144)
    rack.rack.probe = None
    rack.occupy(1, 1)
    assert LMetric().place(turn, turn.session, rack.rack) == (0, 0)


# llmd_default


@pytest.mark.parametrize(
    ("usage", "num_device", "num_host", "replica"), [(0.9, 10, 10, 1), (0.25, 0, 6, 0)]
)
def test_llmd_adds_queue_usage_and_prefix(
    usage: float, num_device: int, num_host: int, replica: int
) -> None:
    """Queue 0 and usage 0.5 score 2 x 1 + 2 x 0.5 = 3. Queue 4, usage 0.9 and all 10 full blocks in
    HBM score 0 + 2 x 0.1 + 3 = 3.2; usage 0.25 and 6 of them in host memory
    1.5 + 3 x 0.8 x 0.6 = 2.94 (``LongestPrefixScorer``: such a block counts for 0.8).
    """
    rack = PlacementRack(2)
    rack.probe.waiting, rack.probe.usage = [0, 4], [0.5, usage]
    chain = own_chain(1, 10)
    rack.cache(1, chain[:num_device], chain[:num_host])
    assert rack.place(LlmdDefault(), rack.turn("s", 650, chain)).replica_id == replica


def test_llmd_lets_equals_take_turns() -> None:
    """``RotateScoredEndpoints``: a counter modulo the number of equals, back to 0 at its end."""
    rack, policy = PlacementRack(3), LlmdDefault()
    assert [rack.place(policy, rack.turn("s", 64)).replica_id for _ in range(4)] == [0, 1, 2, 0]
    rack.probe.usage[1] = 0.5
    assert [rack.place(policy, rack.turn("s", 64)).replica_id for _ in range(3)] == [2, 0, 2]
    rack.rack.probe = None
    assert [rack.place(policy, rack.turn("s", 64)).replica_id for _ in range(2)] == [0, 1]


# all of them

sessions = st.integers(0, 4)
events = st.lists(
    st.tuples(
        sessions, st.lists(st.integers(0, 2), max_size=12), st.integers(0, 63), st.integers(0, 3)
    ),
    max_size=30,
)


class Fleet:
    """Sessions that come, run and go, each context any path of blocks."""

    def __init__(self, name: str, probe: ToldProbe | None) -> None:
        setup = policy_setup(4, 1000)
        self.policy = make_policy(name, setup)
        self.scheduler = ClusterScheduler(ReplicaFleet(4, 1000), self.policy, probe=probe)
        self.probe = probe
        self.active: list[TurnId] = []
        self.homes: dict[int, int] = {}
        self.count = 0

    def arrive(self, session: int, hashes: list[int], more_tokens: int) -> None:
        self.count += 1
        turn_id = TurnId(f"t{self.count}")
        num_tokens = len(hashes) * 64 + more_tokens + 1
        event = TurnArrived(
            turn_id, SessionId(f"s{session}"), num_tokens, 1, block_hashes=tuple(hashes)
        )
        (command,) = self.scheduler.handle(event, 0.0)
        assert isinstance(command, Dispatch)
        assert 0 <= command.replica_id < 4
        self.active.append(turn_id)
        if isinstance(memory(self.policy), StickyLeastLoaded):
            assert self.homes.setdefault(session, command.replica_id) == command.replica_id
        if self.probe is not None:
            self.probe.device[command.replica_id].update(hashes)

    def end_oldest(self) -> None:
        turn_id = self.active.pop(0)
        self.scheduler.handle(PrefillEnded(turn_id, 0), 0.0)
        self.scheduler.handle(TurnEnded(turn_id, 1), 0.0)


def memory(policy: object) -> object:
    return policy._memory if isinstance(policy, PlaceAndRemember) else None


@given(st.sampled_from(NAMES), st.booleans(), events)
def test_every_turn_gets_a_replica_and_what_is_closed_is_forgotten(
    name: str, listens: bool, come: list[tuple[int, list[int], int, int]]
) -> None:
    fleet = Fleet(name, ToldProbe(4) if listens else None)
    for session, path, more_tokens, num_ended in come:
        fleet.arrive(session, chain_of(path), more_tokens)
        for _ in range(min(num_ended, len(fleet.active))):
            fleet.end_oldest()
        fleet.scheduler.check_invariants()
        kept = memory(fleet.policy)
        if isinstance(kept, KvCost):
            kept._active.check_invariants()
        if isinstance(kept, StickyLeastLoaded):
            assert sum(kept.num_sessions) == fleet.scheduler.num_sessions
    while fleet.active:
        fleet.end_oldest()
    for session in range(5):
        fleet.scheduler.handle(SessionClosed(SessionId(f"s{session}")), 0.0)
    kept = memory(fleet.policy)
    if isinstance(kept, StickyLeastLoaded):
        assert kept.num_sessions == [0] * 4
    if isinstance(kept, KvCost):
        kept._active.check_invariants()
        assert kept._active.num_sessions == 0
