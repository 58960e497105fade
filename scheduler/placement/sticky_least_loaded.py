"""A session stays where it began: on the replica that then had the fewest sessions."""

from __future__ import annotations

from hashlib import blake2b

from scheduler.ids import ReplicaId, SessionId
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class StickyLeastLoaded:
    """Fewest active sessions at birth, ties by rendezvous hash; forgotten when the session ends.

    A session is active until it is closed, in tool gaps too. It stays at ``session.home``, so only
    the counts are kept. No TTL: whoever drives the scheduler closes every session.

    Source: vllm-router 0.1.17 ``src/policies/sticky_least_loaded.rs``, ``select_least_loaded`` and
    ``finish_session``; its hash is furc, this one blake2b.

    Cost: O(1) a turn, O(replicas) a new session.
    """

    def __init__(self, num_replicas: int) -> None:
        self.num_sessions = [0] * num_replicas

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the session's replica."""
        if session.home is not None:
            return Placement(session.home)
        counts = self.num_sessions
        fewest = min(counts)
        birthplace = max(
            (ReplicaId(replica) for replica, count in enumerate(counts) if count == fewest),
            key=lambda replica: rendezvous_weight(session.session_id, replica),
        )
        counts[birthplace] += 1
        return Placement(birthplace)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Nothing."""

    def session_closed(self, session: Session, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Count it no longer."""
        if session.home is not None:
            self.num_sessions[session.home] -= 1


def rendezvous_weight(session_id: SessionId, replica_id: ReplicaId) -> int:
    """Return how strongly a session is drawn to a replica; the strongest wins."""
    key = f"{session_id}:{replica_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=8).digest())
