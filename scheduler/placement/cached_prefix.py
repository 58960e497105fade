"""How much of a prompt each replica has, as its KV events tell. O(replicas) a turn."""

from __future__ import annotations

from typing import NamedTuple

from scheduler.ids import ReplicaId
from scheduler.rack import Rack
from scheduler.session import Turn


class CachedPrefix(NamedTuple):
    """Leading blocks of a prompt in a replica's HBM, and those that go on in its host's memory."""

    device_blocks: int
    host_blocks: int

    def blocks(self, host_credit: float) -> float:
        """Return what they are worth in blocks of HBM."""
        return self.device_blocks + host_credit * self.host_blocks


NOTHING = CachedPrefix(0, 0)


def cached_prefixes(turn: Turn, rack: Rack, num_tokens: int) -> list[CachedPrefix]:
    """Return what each replica has of the full blocks in a prompt's first ``num_tokens`` tokens.

    Nothing where nobody listens to events: a router then goes by load alone.
    """
    probe, fleet = rack.probe, rack.fleet
    hashes = turn.block_hashes[: num_tokens // fleet.block_size_tokens]
    if probe is None or not hashes:
        return [NOTHING] * rack.num_replicas
    prefixes = []
    for replica in map(ReplicaId, range(rack.num_replicas)):
        device_blocks = probe.num_cached_blocks(replica, hashes)
        host_blocks = probe.num_host_blocks(replica, hashes) if fleet.host_kv_tokens else 0
        prefixes.append(CachedPrefix(device_blocks, host_blocks))
    return prefixes
