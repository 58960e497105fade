"""Racks whose replicas hold what a test says, to place turns on."""

from collections.abc import Sequence

from scheduler.events import TurnArrived
from scheduler.ids import ReplicaId, SessionId, TenantId, TurnId
from scheduler.policy import Placement, PlacementPolicy
from scheduler.rack import Rack, ReplicaFleet
from scheduler.session import Session, Turn


class ToldProbe:
    """Reports queues, KV usage and blocks as told."""

    def __init__(self, num_replicas: int) -> None:
        self.waiting = [0] * num_replicas
        self.usage = [0.0] * num_replicas
        self.device: list[set[int]] = [set() for _ in range(num_replicas)]
        self.host: list[set[int]] = [set() for _ in range(num_replicas)]

    def num_waiting(self, replica_id: ReplicaId) -> int:
        return self.waiting[replica_id]

    def num_running(self, replica_id: ReplicaId) -> int:
        return 0

    def kv_usage(self, replica_id: ReplicaId) -> float:
        return self.usage[replica_id]

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return _leading(block_hashes, self.device[replica_id])

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        beyond = block_hashes[self.num_cached_blocks(replica_id, block_hashes) :]
        return _leading(beyond, self.host[replica_id])


def _leading(hashes: Sequence[int], there: set[int]) -> int:
    return next((n for n, block in enumerate(hashes) if block not in there), len(hashes))


class PlacementRack:
    """A rack, and turns that come to it; a policy places them, or a test says where they run."""

    def __init__(self, num_replicas: int, block: int = 64, kv_tokens: int = 64_000) -> None:
        self.fleet = ReplicaFleet(num_replicas, kv_tokens, block, host_kv_tokens=kv_tokens)
        self.probe = ToldProbe(num_replicas)
        self.rack = Rack(self.fleet, self.probe)
        self.sessions: dict[str, Session] = {}
        self._count = 0

    def turn(self, session: str, num_tokens: int, hashes: Sequence[int] = ()) -> Turn:
        """A turn that has arrived."""
        self._count += 1
        if session not in self.sessions:
            self.sessions[session] = Session(SessionId(session), None, TenantId(""), 0.0, 0)
        arrived = TurnArrived(
            TurnId(f"t{self._count}"),
            SessionId(session),
            num_tokens,
            10,
            block_hashes=hashes,
        )
        return Turn(arrived, self.sessions[session], 0.0)

    def place(self, policy: PlacementPolicy, turn: Turn) -> Placement:
        """Let a policy place a turn, and run it there."""
        placement = policy.place(turn, turn.session, self.rack)
        self.rack.dispatch(
            turn, placement.replica_id, num_cached_tokens=placement.num_cached_tokens
        )
        return placement

    def occupy(self, replica: int, num_turns: int, prefill_tokens: int = 0) -> None:
        """Have turns under way on a replica, with so many tokens to prefill between them."""
        for number in range(num_turns):
            turn = self.turn(f"filler {self._count}", prefill_tokens or 1)
            self.rack.dispatch(turn, ReplicaId(replica))
            if number or not prefill_tokens:
                self.rack.end_prefill(turn)

    def cache(self, replica: int, hashes: Sequence[int], host_hashes: Sequence[int] = ()) -> None:
        """Have a replica hold blocks, in HBM and in host memory."""
        self.probe.device[replica].update(hashes)
        self.probe.host[replica].update(host_hashes)


def own_chain(branch: int, num_blocks: int) -> list[int]:
    """A chain that shares nothing with those of other branches."""
    return [(branch << 32) + block for block in range(num_blocks)]


def chain_of(path: Sequence[int]) -> list[int]:
    """Chained hashes: those of two paths of digits agree as far as the digits do."""
    hashes, block = [], 0
    for digit in path:
        block = block * 3 + digit + 1
        hashes.append(block)
    return hashes
