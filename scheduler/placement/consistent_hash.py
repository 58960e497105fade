"""A session's turns all go where its id hashes to: sticky for ever, blind to load."""

from __future__ import annotations

import bisect
from hashlib import blake2b

from scheduler.ids import ReplicaId
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn

POINTS_PER_REPLICA = 160
"""Virtual nodes a replica; vllm-router's number."""


class ConsistentHash:
    """A hash ring; adding a replica moves only the sessions that fall to it."""

    def __init__(self, num_replicas: int) -> None:
        points = sorted(
            (_point(f"{replica}#{index}"), replica)
            for replica in range(num_replicas)
            for index in range(POINTS_PER_REPLICA)
        )
        self._points = [point for point, _ in points]
        self._replicas = [replica for _, replica in points]

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica at the first point at or after the session's own."""
        index = bisect.bisect_left(self._points, _point(session.session_id))
        return Placement(ReplicaId(self._replicas[index % len(self._replicas)]))


def _point(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())
