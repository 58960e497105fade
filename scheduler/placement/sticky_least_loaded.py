"""A session stays where it began: on the replica that then had the fewest sessions."""

from __future__ import annotations

from hashlib import blake2b

from typing_extensions import override

from scheduler.ids import ReplicaId, SessionId
from scheduler.policy import PlaceAtOnce, Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class StickyLeastLoaded(PlaceAtOnce):
    """Fewest active sessions at birth, ties by rendezvous hash; forgotten when the session ends.

    Source: vllm-router 0.1.17 ``sticky_least_loaded``; a session is active until it is finished.
    """

    def __init__(self, num_replicas: int) -> None:
        super().__init__(self)
        self._num_sessions = [0] * num_replicas
        self._homes: dict[SessionId, ReplicaId] = {}

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the session's replica."""
        home = self._homes.get(session.session_id)
        if home is None:
            counts = self._num_sessions
            fewest = min(counts)
            home = max(
                (ReplicaId(r) for r in range(len(counts)) if counts[r] == fewest),
                key=lambda replica: _affinity(session.session_id, replica),
            )
            counts[home] += 1
            self._homes[session.session_id] = home
        return Placement(home)

    @override
    def session_closed(self, session: Session, rack: Rack) -> None:
        """Count it no longer."""
        home = self._homes.pop(session.session_id, None)
        if home is not None:
            self._num_sessions[home] -= 1


def _affinity(session_id: SessionId, replica: ReplicaId) -> int:
    key = f"{session_id}@{replica}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=8).digest())
