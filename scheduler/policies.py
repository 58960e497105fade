"""All policies by name: how each is made, where it is from, and what engines it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.errors import UnknownPolicyError
from scheduler.panjiu.policy import Panjiu
from scheduler.placement.consistent_hash import ConsistentHash
from scheduler.placement.home_for_life import HomeForLife
from scheduler.placement.kv_cost import TUNED_PREFILL_SCALE, KvCost
from scheduler.placement.least_loaded import LeastLoaded
from scheduler.placement.llmd_default import LlmdDefault
from scheduler.placement.lmetric import LMetric
from scheduler.placement.power_of_two import PowerOfTwo
from scheduler.placement.prefix_affinity import PrefixAffinity
from scheduler.placement.round_robin import RoundRobin
from scheduler.placement.sticky_least_loaded import StickyLeastLoaded
from scheduler.policy import PlaceAndRemember, PlaceAtOnce, Policy
from scheduler.programs.concur import Concur
from scheduler.programs.continuum import Continuum
from scheduler.programs.infercept import InferCept
from scheduler.programs.mori import Mori
from scheduler.programs.plas import Plas
from scheduler.programs.progress_formulas import ProgressLimits
from scheduler.programs.progress_ttl import ProgressTtl
from scheduler.programs.saga import Saga
from scheduler.programs.thunderagent import TUNED_DECAY_S, ThunderAgent
from scheduler.programs.ttl_rules import PaperTtl, PublicTtl
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
        "match 0.5 (the library's and SGLang's, better than the command line's 0.3 where sessions "
        "share a trunk); imbalance 64 and 1.5 (8 and 1.1 is no better); remembers as much as a "
        "replica's KV holds, for a longer memory believes in what is evicted",
    ),
    "kv_cost": PolicyEntry(
        lambda setup: PlaceAndRemember(KvCost(setup.fleet, setup.seed)),
        "NVIDIA Dynamo 1.6.1 lib/kv-router/src/scheduling/selector",
        "the defaults: prefill scale 1, credit 1 (HBM) and 0.75 (host), no decay, request weight "
        "0, temperature 0; KV events without delay",
    ),
    "kv_cost_tuned": PolicyEntry(
        lambda setup: PlaceAndRemember(KvCost(setup.fleet, setup.seed, TUNED_PREFILL_SCALE)),
        "as kv_cost",
        "prefill scale 20, of 1 to 100 the best mean JCT or within 2 % of it: at 1 a cached block "
        "is worth no more than an active one, so long contexts leave their KV for an emptier "
        "replica; decay makes it worse",
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
    "concur": PolicyEntry(
        lambda setup: Concur(setup.fleet.num_replicas),
        "CONCUR (PACE), arXiv 2601.22705",
        "the paper's U and H; a window a replica, decided on once a minute: of 10 s to 5 min the "
        "best under light load and within a tenth of the best under heavy; shorter ones see too "
        "few prompts for a hit rate",
    ),
    "thunderagent": PolicyEntry(
        lambda setup: ThunderAgent(setup.fleet.num_replicas, setup.fleet.max_context_tokens),
        "ThunderAgent, arXiv 2602.13692 and its code; thresholds of NVIDIA Dynamo 1.6's port",
        "as published: 5 s tick, pause at 95 % down to 80 %, resume below 85 %, decay 1 s",
    ),
    "thunderagent_tuned": PolicyEntry(
        lambda setup: ThunderAgent(
            setup.fleet.num_replicas, setup.fleet.max_context_tokens, decay_s=TUNED_DECAY_S
        ),
        "as thunderagent",
        "decay 60 s, of 1 s to none the best under overload, if not under light load: who comes "
        "back after a minute finds KV that the published second gives away",
    ),
    "plas": PolicyEntry(
        lambda setup: Plas(setup.cost),
        "PLAS of Autellix (Agentix), arXiv 2502.13965",
        "8 classes from 64 s on, of 2, 16 and 64 s the best: the longest agents run for hours; "
        "promotion after waiting 8 times as long; 2,048 tokens are the paper's",
        uses_priorities=True,
    ),
    "continuum": PolicyEntry(
        lambda setup: Continuum(
            PaperTtl(setup.cost, has_host_memory=setup.fleet.host_kv_tokens > 0), setup.cost
        ),
        "Continuum as in the paper, arXiv 2511.02230",
        "its equation with this rack's prefill times; the paper's 100 samples; human gaps are a "
        "class of their own, which the paper has not and which keeps them from being pinned for",
        uses_priorities=True,
    ),
    "continuum_public": PolicyEntry(
        lambda setup: Continuum(PublicTtl(), setup.cost),
        "Continuum as in its public code, vllm-continuum",
        "fixed at 2 s there",
        uses_priorities=True,
    ),
    "infercept": PolicyEntry(
        InferCept,
        "InferCept, arXiv 2402.01869",
        "its three wastes with this rack's prefill and host link; first come first served by "
        "session, as requests keep their place there",
        uses_priorities=True,
    ),
    "mori": PolicyEntry(
        lambda setup: Mori(setup.fleet),
        "MORI, arXiv 2606.00866",
        "5 cycles and a 5 s tick as in the paper; its tier in host memory is there if the rack has "
        "host memory",
    ),
    "progress_ttl": PolicyEntry(
        lambda setup: ProgressTtl(setup.fleet, setup.cost),
        "vllm-router 0.1.17 --enable-program-scheduling",
        "its defaults, with this rack's prefill times for those calibrated there; global queue on "
        "and programs bound where the fewest are, since its hash ignores load",
    ),
    "progress_ttl_tuned": PolicyEntry(
        lambda setup: ProgressTtl(setup.fleet, setup.cost, ProgressLimits(300.0, 1800.0)),
        "as progress_ttl",
        "times to live up to 300 s and turns held up to 1,800 s, both options of the router: of "
        "10 to 300 s and 300 to 1,800 s the best under overload, and little worse without; with "
        "the defaults nearly half of all resumptions under overload are forced, without room",
    ),
    "saga_walru": PolicyEntry(
        Saga,
        "SAGA, arXiv 2605.00528: WA-LRU, TTL, session affinity and work stealing",
        "weights .3, .5 and .2, load 0.8, P95 up to 300 s and 100 ms are the paper's; load is the "
        "share of KV that turns take",
    ),
    "home_for_life": PolicyEntry(
        lambda _: PlaceAtOnce(HomeForLife()), "common", "least context at birth, then sticky"
    ),
    "panjiu": PolicyEntry(Panjiu, "this project (docs/scheduling.md)", "PanjiuSettings' defaults"),
    "clairvoyant": PolicyEntry(
        lambda setup: Panjiu(setup, knows_future=True),
        "a bound: panjiu, with every gap and length known (Belady's rule)",
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
