"""All policies by name: how each is made, where it is from, and what engines it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.errors import UnknownPolicyError
from scheduler.panjiu.policy import Panjiu
from scheduler.placement.consistent_hash import ConsistentHash
from scheduler.placement.home_for_life import HomeForLife
from scheduler.placement.kv_cost import KvCost
from scheduler.placement.least_loaded import LeastLoaded
from scheduler.placement.llmd_default import LlmdDefault
from scheduler.placement.lmetric import LMetric
from scheduler.placement.power_of_two import PowerOfTwo
from scheduler.placement.prefix_affinity import PrefixAffinity
from scheduler.placement.round_robin import RoundRobin
from scheduler.placement.sticky_least_loaded import StickyLeastLoaded
from scheduler.policy import PlaceAndRemember, PlaceAtOnce, Policy
from scheduler.setup import PolicySetup


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy that can be asked for.

    Attributes:
        make: Makes one for a rack.
        source: Whose it is, and where its formula stands.
        settings: What it is set to here, and why that is its best.
        uses_priorities: Whether its engines must look at priorities.
        needs_future: Whether it knows what nobody can; a bound and no policy.
    """

    make: Callable[[PolicySetup], Policy]
    source: str
    settings: str = ""
    uses_priorities: bool = False
    needs_future: bool = False


POLICIES: dict[str, PolicyEntry] = {
    "round_robin": PolicyEntry(
        lambda setup: PlaceAtOnce(RoundRobin(setup.fleet.num_replicas)), "common"
    ),
    "least_loaded": PolicyEntry(lambda _: PlaceAtOnce(LeastLoaded()), "common"),
    "consistent_hash": PolicyEntry(
        lambda setup: PlaceAtOnce(ConsistentHash(setup.fleet.num_replicas)),
        "vllm-router 0.1.17 consistent_hash",
        "160 virtual nodes a replica, by session id",
    ),
    "power_of_two": PolicyEntry(
        lambda setup: PlaceAtOnce(PowerOfTwo(setup.seed)),
        "Mitzenmacher 2001; vllm-router 0.1.17 src/policies/power_of_two.rs",
        "load: turns under way, exact; polled loads could only be older",
    ),
    "sticky_least_loaded": PolicyEntry(
        lambda setup: PlaceAndRemember(StickyLeastLoaded(setup.fleet.num_replicas)),
        "vllm-router 0.1.17 src/policies/sticky_least_loaded.rs",
        "every session is finished explicitly, so no TTL moves one that only paused",
    ),
    "prefix_affinity": PolicyEntry(
        lambda setup: PlaceAtOnce(PrefixAffinity(setup.fleet)),
        "vllm-router 0.1.17 src/policies/cache_aware.rs select_prepared; SGLang cache_aware",
        "match 0.3, imbalance 64 and 1.5 (router_args.py); remembers as much as a replica's KV "
        "holds, so it seldom believes in what is evicted",
    ),
    "kv_cost": PolicyEntry(
        lambda setup: PlaceAndRemember(KvCost(setup.fleet, setup.seed)),
        "NVIDIA Dynamo 1.6.1 lib/kv-router/src/scheduling/selector",
        "the defaults: credit 1 (HBM) and 0.75 (host), prefill scale 1, no decay, request weight "
        "0, temperature 0; KV events without delay",
    ),
    "lmetric": PolicyEntry(
        lambda _: PlaceAtOnce(LMetric()),
        "LMetric (arXiv 2603.15202); vllm-router 0.1.17 src/policies/kv_aware.rs",
        "the defaults: host credit 0.8, temperature 0; KV events without delay",
    ),
    "llmd_default": PolicyEntry(
        lambda _: PlaceAtOnce(LlmdDefault()),
        "llm-d-router at ebab687 pkg/epp/config/loader/defaults.go",
        "weights 2, 2 and 3 (default profile); its precise prefixes instead of approximate ones, "
        "host credit 0.8; metrics and KV events without delay",
    ),
    "home_for_life": PolicyEntry(
        lambda _: PlaceAtOnce(HomeForLife()), "common", "least context at birth, then sticky"
    ),
    "panjiu": PolicyEntry(Panjiu, "this project (docs/scheduling.md)", "PanjiuSettings' defaults"),
    "clairvoyant": PolicyEntry(
        lambda setup: Panjiu(setup, knows_future=True),
        "a bound: panjiu, with every gap known (Belady's rule)",
        needs_future=True,
    ),
}


def policy_entry(name: str) -> PolicyEntry:
    """Return what is known of a policy.

    Raises:
        UnknownPolicyError: No such policy; lists those there are.
    """
    try:
        return POLICIES[name]
    except KeyError:
        raise UnknownPolicyError(name, POLICIES) from None


def make_policy(name: str, setup: PolicySetup) -> Policy:
    """Return a fresh policy.

    Raises:
        UnknownPolicyError: No such policy; lists those there are.
    """
    return policy_entry(name).make(setup)
