"""Replicas by how loaded they are, with the least of them at hand in O(log n)."""

from __future__ import annotations

import heapq

from scheduler.ids import ReplicaId


class LoadOrder:
    """Replicas by a load that changes: ``add`` and ``least`` in O(log n) amortised.

    A heap with lazy deletion: stale entries are dropped when they surface, and the heap is rebuilt
    when most of it is stale.

    Invariant: for every replica the heap holds an entry with its current load.
    """

    __slots__ = ("_heap", "loads")

    def __init__(self, num_replicas: int) -> None:
        self.loads = [0] * num_replicas
        self._heap = [(0, replica) for replica in range(num_replicas)]

    def add(self, replica_id: ReplicaId, amount: int) -> None:
        """Change a replica's load."""
        if amount == 0:
            return
        self.loads[replica_id] += amount
        if len(self._heap) > 8 * len(self.loads):
            self._heap = [(load, replica) for replica, load in enumerate(self.loads)]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (self.loads[replica_id], replica_id))

    def least(self) -> ReplicaId:
        """Return the replica with the least load, the lowest id among equals."""
        while True:
            load, replica = self._heap[0]
            if self.loads[replica] == load:
                return ReplicaId(replica)
            heapq.heappop(self._heap)
