"""Replicas by how loaded they are, with the least of them at hand in O(log n)."""

from __future__ import annotations

import heapq

from scheduler.ids import ReplicaId


class LoadOrder:
    """Replicas by a load that changes: ``add`` and ``least`` in O(log n) amortised.

    A heap with lazy deletion: stale entries are dropped when they surface, and the heap is rebuilt
    when most of it is stale.

    Invariant: for every replica that is not closed the heap holds an entry with its current load.
    """

    __slots__ = ("_closed", "_heap", "loads")

    def __init__(self, num_replicas: int) -> None:
        self.loads = [0] * num_replicas
        self._heap = [(0, replica) for replica in range(num_replicas)]
        self._closed: set[int] = set()

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
        """Return the open replica with the least load, the lowest id among equals.

        Where all are closed, the one with the least load of them.
        """
        heap, loads, closed = self._heap, self.loads, self._closed
        while heap:
            load, replica = heap[0]
            if loads[replica] == load and replica not in closed:
                return ReplicaId(replica)
            heapq.heappop(heap)
        return ReplicaId(min(closed, key=lambda replica: (loads[replica], replica)))

    def close(self, replica_id: ReplicaId) -> None:
        """Have ``least`` pass over a replica; its load still counts."""
        self._closed.add(replica_id)

    def open(self, replica_id: ReplicaId) -> None:
        """Have ``least`` look at it again."""
        self._closed.discard(replica_id)
        heapq.heappush(self._heap, (self.loads[replica_id], replica_id))
