"""Racks for policies to decide on, without replicas."""

from functools import cache

from hw_model.claim import Band
from scheduler.cost import CostModel, TabulatedCost
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup
from tests.engines import deployment


@cache
def cost_model() -> CostModel:
    return TabulatedCost.of(deployment("qwen3-8b", num_replicas=2), Band.BASE, 8192)


def policy_setup(num_replicas: int, kv_tokens: int, host_kv_tokens: int = 0) -> PolicySetup:
    fleet = ReplicaFleet(num_replicas, kv_tokens, host_kv_tokens=host_kv_tokens)
    return PolicySetup(fleet, cost_model())
