"""Replicas by how loaded they are, with the least of them at hand in O(log n)."""

from __future__ import annotations

import heapq

from scheduler.ids import ReplicaId


class LoadOrder:
    """Replicas by a load that changes: ``add`` in O(1), ``least`` in O(changed * log n).

    A heap with lazy deletion that learns of changes when it is asked: what nobody asks for costs
    an addition, and a load that goes up and down again costs nothing more.

    Invariant: every open replica has an entry in the heap with its current load, or is in
        ``_changed``; other entries are stale.
    """

    __slots__ = ("_changed", "_closed", "_heap", "loads")

    def __init__(self, num_replicas: int) -> None:
        self.loads = [0] * num_replicas
        self._heap = [(0, replica) for replica in range(num_replicas)]
        self._changed: set[int] = set()
        self._closed: set[int] = set()

    def add(self, replica_id: ReplicaId, amount: int) -> None:
        """Change a replica's load."""
        self.loads[replica_id] += amount
        self._changed.add(replica_id)

    def least(self) -> ReplicaId:
        """Return the open replica with the least load, the lowest id among equals.

        Where all are closed, the one with the least load of them.
        """
        if self._changed:
            self._take_in()
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
        self._changed.add(replica_id)

    def _take_in(self) -> None:
        """Bring the heap up to date, anew where most of it would be stale."""
        loads, heap, changed = self.loads, self._heap, self._changed
        if len(heap) + len(changed) > 4 * len(loads):
            heap[:] = [(load, replica) for replica, load in enumerate(loads)]
            heapq.heapify(heap)
        else:
            for replica in changed:
                heapq.heappush(heap, (loads[replica], replica))
        changed.clear()
