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


def cached_prefixes(turn: Turn, rack: Rack) -> list[CachedPrefix]:
    """Return what each replica has of a prompt; nothing where nobody listens to events.

    The block with the last prompt token never counts: it must be computed for the first token.
    """
    probe, block = rack.probe, rack.fleet.block_size_tokens
    if probe is None:
        return [CachedPrefix(0, 0)] * rack.num_replicas
    hashes = turn.block_hashes[: (turn.num_prompt_tokens - 1) // block]
    replicas = [ReplicaId(replica) for replica in range(rack.num_replicas)]
    if rack.fleet.host_kv_tokens:
        return [
            CachedPrefix(probe.num_cached_blocks(r, hashes), probe.num_host_blocks(r, hashes))
            for r in replicas
        ]
    return [CachedPrefix(probe.num_cached_blocks(r, hashes), 0) for r in replicas]
