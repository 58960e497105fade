"""How many seconds of prefill every replica has ahead of it, by the policy's reckoning."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.load_order import LoadOrder
from scheduler.session import Turn


class PrefillBacklog:
    """What was sent to replicas and has no first token yet.

    Counted in milliseconds, as integers: what is taken off is what was put on.
    """

    __slots__ = ("_order", "_turns")

    def __init__(self, num_replicas: int) -> None:
        self._order = LoadOrder(num_replicas)
        self._turns: dict[Turn, tuple[ReplicaId, int]] = {}

    def add(self, turn: Turn, replica_id: ReplicaId, prefill_s: float) -> None:
        """Count a turn's prefill, at least a millisecond."""
        millis = max(1, round(prefill_s * 1000))
        self._turns[turn] = replica_id, millis
        self._order.add(replica_id, millis)

    def remove(self, turn: Turn) -> None:
        """Count it no longer; once is enough."""
        counted = self._turns.pop(turn, None)
        if counted is not None:
            self._order.add(counted[0], -counted[1])

    def ahead_s(self, replica_id: ReplicaId) -> float:
        """Return the seconds that a replica has ahead of it."""
        return self._order.loads[replica_id] / 1000

    def of(self, turn: Turn) -> float:
        """Return the seconds of a turn that is counted."""
        return self._turns[turn][1] / 1000

    def least(self) -> ReplicaId:
        """Return the replica with the least."""
        return self._order.least()

    def close(self, replica_id: ReplicaId) -> None:
        """Have ``least`` pass over a replica."""
        self._order.close(replica_id)

    def open(self, replica_id: ReplicaId) -> None:
        """Have it looked at again."""
        self._order.open(replica_id)

    def __contains__(self, turn: Turn) -> bool:
        return turn in self._turns

    def __len__(self) -> int:
        return len(self._turns)
