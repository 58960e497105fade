"""How full replicas are, by what they report or else by what was sent to them."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.ids import ReplicaId
from scheduler.rack import Rack


def idle_replicas(rack: Rack) -> list[ReplicaId]:
    """Return the replicas without active turns: to hold a turn back from one helps nobody."""
    return [ReplicaId(at) for at, turns in enumerate(rack.active_turns.loads) if turns == 0]


def kv_usage(rack: Rack, replica_id: ReplicaId) -> float:
    """Return the share of a replica's KV that requests hold."""
    if rack.probe is not None:
        return rack.probe.kv_usage(replica_id)
    return min(1.0, rack.active_tokens.loads[replica_id] / rack.fleet.max_context_tokens)


def least_loaded(loads: Sequence[float], rack: Rack) -> ReplicaId:
    """Return the replica of the least load; among equals, the home of the least context."""
    homes = rack.session_tokens.loads
    return ReplicaId(min(range(len(loads)), key=lambda at: (loads[at], homes[at])))
