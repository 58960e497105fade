"""The interconnect between replicas: who is reading from whom, and until when."""

from __future__ import annotations

from scheduler.cost import TransferCosts
from scheduler.ids import ReplicaId
from scheduler.rack import ReplicaFleet


class Links:
    """Each replica sends one context at a time and receives one at a time."""

    __slots__ = ("_are_there", "_costs", "_receives_until_s", "_sends_until_s")

    def __init__(self, costs: TransferCosts, fleet: ReplicaFleet) -> None:
        num_replicas = fleet.num_replicas
        self._are_there = fleet.retains_kv  # else nobody carries out a pull
        self._costs = costs
        self._sends_until_s = [0.0] * num_replicas
        self._receives_until_s = [0.0] * num_replicas

    def reach(self, source: ReplicaId, target: ReplicaId) -> bool:
        """Return whether KV can go from one to the other."""
        return self._are_there and source != target and self._costs.same_domain(source, target)

    def wait_s(self, source: ReplicaId, target: ReplicaId, now_s: float) -> float:
        """Return how long a transfer would wait for those under way."""
        free_s = max(self._sends_until_s[source], self._receives_until_s[target])
        return max(0.0, free_s - now_s)

    def pull_s(self, source: ReplicaId, target: ReplicaId, num_tokens: int, now_s: float) -> float:
        """Return how long a transfer would take, waiting included."""
        return self.wait_s(source, target, now_s) + self._costs.pull_s(num_tokens)

    def book(self, source: ReplicaId, target: ReplicaId, num_tokens: int, now_s: float) -> float:
        """Begin a transfer as soon as it can; return when it is done."""
        done_s = now_s + self.pull_s(source, target, num_tokens, now_s)
        self._sends_until_s[source] = self._receives_until_s[target] = done_s
        return done_s
