"""What emulated replicas report of themselves: the truth of this moment."""

from __future__ import annotations

from collections.abc import Sequence

from hw_model.engine.engine_core import EngineCore
from scheduler.ids import ReplicaId


class EngineProbe:
    """A ``ReplicaProbe`` that looks into engines, so nothing it says is ever stale."""

    __slots__ = ("_engines",)

    def __init__(self, engines: Sequence[EngineCore]) -> None:
        self._engines = engines

    def num_waiting(self, replica_id: ReplicaId) -> int:
        """Return the requests that wait for admission."""
        return self._engines[replica_id].num_waiting

    def num_running(self, replica_id: ReplicaId) -> int:
        """Return the requests in the batch."""
        return self._engines[replica_id].num_running

    def kv_usage(self, replica_id: ReplicaId) -> float:
        """Return the share of blocks that requests hold."""
        return self._engines[replica_id].kv_active_ratio

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        """Return how many leading blocks of a chain are in HBM."""
        return self._engines[replica_id].residency.num_cached(block_hashes)

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        """Return how many blocks the host has beyond them."""
        return self._engines[replica_id].residency.num_in_host(block_hashes)
