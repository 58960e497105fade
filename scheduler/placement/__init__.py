"""Where a turn runs: a policy sees the turn, its session and the load, and names a replica."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.errors import UnknownPolicyError
from scheduler.placement.consistent_hash import ConsistentHash
from scheduler.placement.least_loaded import LeastLoaded
from scheduler.placement.panjiu import Panjiu
from scheduler.placement.policy import PlacementPolicy
from scheduler.placement.round_robin import RoundRobin

POLICIES: dict[str, Callable[[int], PlacementPolicy]] = {
    "round_robin": RoundRobin,
    "least_loaded": lambda _: LeastLoaded(),
    "consistent_hash": ConsistentHash,
    "panjiu": lambda _: Panjiu(),
}
"""Policies by name; each is made from the number of replicas."""


def make_policy(name: str, num_replicas: int) -> PlacementPolicy:
    """Return a fresh policy.

    Raises:
        UnknownPolicyError: No such policy; lists those there are.
    """
    try:
        return POLICIES[name](num_replicas)
    except KeyError:
        raise UnknownPolicyError(name, POLICIES) from None
