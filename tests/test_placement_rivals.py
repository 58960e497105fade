"""Routers that place every turn at once, each against its formula worked by hand."""

from collections.abc import Sequence

import pytest

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch
from scheduler.events import PrefillEnded, SessionClosed, TurnArrived, TurnEnded
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.placement.routed_blocks import RoutedBlocks
from scheduler.policies import make_policy
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup
from tests.racks import cost_model

BLOCK = 64


class FixedProbe:
    """Replicas that report what the test says."""

    def __init__(
        self,
        cached: Sequence[int] = (0, 0, 0),
        host: Sequence[int] = (0, 0, 0),
        waiting: Sequence[int] = (0, 0, 0),
        usage: Sequence[float] = (0, 0, 0),
    ) -> None:
        self.cached, self.host, self.waiting, self.usage = cached, host, waiting, usage

    def num_waiting(self, replica_id: ReplicaId) -> int:
        return self.waiting[replica_id]

    def num_running(self, replica_id: ReplicaId) -> int:
        return 0

    def kv_usage(self, replica_id: ReplicaId) -> float:
        return self.usage[replica_id]

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return min(self.cached[replica_id], len(block_hashes))

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return self.host[replica_id]


class Router:
    """A policy on three replicas."""

    def __init__(self, policy: str, probe: FixedProbe | None = None, host_kv: int = 0) -> None:
        fleet = ReplicaFleet(3, 100_000, BLOCK, host_kv_tokens=host_kv)
        setup = PolicySetup(fleet, cost_model())
        self.scheduler = ClusterScheduler(setup.fleet, make_policy(policy, setup), probe=probe)
        self.count = 0

    def send(self, session: str, num_blocks: int, first: int = 0) -> int:
        """Send a prompt of so many blocks and one token; return where it goes."""
        self.count += 1
        event = TurnArrived(
            TurnId(f"t{self.count}"),
            SessionId(session),
            num_blocks * BLOCK + 1,
            10,
            block_hashes=range(first, first + num_blocks),
        )
        (command,) = self.scheduler.handle(event, 0.0)
        assert isinstance(command, Dispatch)
        return command.replica_id

    def prefilled(self, number: int) -> None:
        self.scheduler.handle(PrefillEnded(TurnId(f"t{number}"), 0), 0.0)

    def end(self, number: int) -> None:
        self.scheduler.handle(TurnEnded(TurnId(f"t{number}"), 100), 0.0)

    def close(self, session: str) -> None:
        self.scheduler.handle(SessionClosed(SessionId(session)), 0.0)


def test_power_of_two_never_takes_the_most_loaded_of_three() -> None:
    router = Router("power_of_two")
    counts = [0, 0, 0]
    for number in range(300):
        counts[router.send(f"s{number}", 1)] += 1
    assert max(counts) - min(counts) <= 6, "two choices keep loads within a few turns"


def test_sticky_least_loaded_counts_sessions_and_not_turns() -> None:
    router = Router("sticky_least_loaded")
    first = router.send("a", 1)
    assert [router.send("a", 1) for _ in range(5)] == [first] * 5
    others = {router.send("b", 1), router.send("c", 1)}
    assert others == {0, 1, 2} - {first}, "six turns of one session are one session"
    for number in range(1, 7):
        router.end(number)
    router.close("a")
    assert router.send("d", 1) == first


def test_prefix_affinity_follows_matches_above_three_tenths_and_else_the_smallest_tree() -> None:
    router = Router("prefix_affinity")
    home = router.send("a", 10)
    assert router.send("b", 31) == home, "10 of 31 blocks and a token match: 32 %"
    other = router.send("c", 40, first=1000)
    assert other != home, "no match: the smallest tree"
    third = router.send("d", 10, first=5000)
    assert {home, other, third} == {0, 1, 2}


def test_prefix_affinity_gives_balance_its_due_beyond_64_turns_and_half_as_many_again() -> None:
    router = Router("prefix_affinity")
    home = router.send("a", 10)
    places = [router.send("a", 10) for _ in range(70)]
    assert places[:64] == [home] * 64, "up to a difference of 64"
    assert places[64] != home


def test_a_router_forgets_tails_before_heads() -> None:
    sent = RoutedBlocks(1, budget_blocks=6)
    sent.remember(ReplicaId(0), range(4))
    sent.remember(ReplicaId(0), range(100, 104))
    assert sent.num_blocks(ReplicaId(0)) == 6
    assert sent.num_matched(ReplicaId(0), range(4)) == 2
    assert sent.num_matched(ReplicaId(0), range(100, 104)) == 4


def test_kv_cost_is_prefill_to_come_less_overlap_plus_decode() -> None:
    # 21 blocks come in. Costs: 21 - 0 = 21, 21 - 12 = 9, 21 - 0.75 * 20 = 6.
    router = Router("kv_cost", FixedProbe(cached=(0, 12, 0), host=(0, 0, 20)), host_kv=10_000)
    assert router.send("a", 20) == 2
    # Then replica 2 has 20 blocks of decode, none of prefill: 26 against 9.
    assert router.send("b", 20) == 1


def test_lmetric_multiplies_new_prefill_by_batch_size() -> None:
    # Prompt of 20 blocks and a token: 1,281 x 1, 1,281 - 640 = 641 x 1, 1,281 x 1.
    router = Router("lmetric", FixedProbe(cached=(0, 10, 0)))
    assert router.send("a", 20) == 1
    # Now replica 1 has one active request and 641 tokens of prefill: (641 + 641) x 2 > 1,281 x 1.
    assert router.send("b", 20) == 0
    router.prefilled(1)
    router.prefilled(2)
    # (641 + 0) x 2 = 1,282 on replica 1, 1,281 x 2 on 0, 1,281 x 1 on 2.
    assert router.send("c", 20) == 2


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        # 2 x 1 + 2 x (1 - .5) + 3 x 0 = 3; 2 x 0 + 2 x .8 + 3 x 20/21 = 4.46; 2 x .5 + 2 = 3.
        (FixedProbe(cached=(0, 20, 0), waiting=(0, 4, 2), usage=(0.5, 0.2, 0.0)), 1),
        # The same with KV that is all in use: 0 + 0 + 2.86 < 3 = 3: the lowest id.
        (FixedProbe(cached=(0, 20, 0), waiting=(0, 4, 2), usage=(0.5, 1.0, 0.0)), 0),
    ],
)
def test_llmd_adds_queue_kv_and_prefix_scores(probe: FixedProbe, expected: int) -> None:
    assert Router("llmd_default", probe).send("a", 20) == expected


@pytest.mark.parametrize("policy", ["kv_cost", "lmetric", "llmd_default"])
def test_routers_that_nobody_reports_to_still_place_turns(policy: str) -> None:
    router = Router(policy)
    assert {router.send(f"s{n}", 5) for n in range(6)} <= {0, 1, 2}
