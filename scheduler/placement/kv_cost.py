"""Dynamo's KV router: blocks to prefill plus blocks to decode with."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.placement.cached_prefix import cached_prefixes
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn

HOST_CREDIT = 0.75
"""What a block in host memory is worth of one in HBM."""


class KvCost:
    """``max(0, active prefill + incoming - overlap) + decode blocks``, the least of it.

    Overlap is exact, from KV events: device blocks plus ``HOST_CREDIT`` times the host's.
    Temperature 0, weight of active requests 0 and no decay, as by default.

    Source: NVIDIA Dynamo 1.6.1, KV router's cost.
    """

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the least cost, the lowest id among equals."""
        block = rack.fleet.block_size_tokens
        incoming = -(-turn.num_prompt_tokens // block)
        prefixes = cached_prefixes(turn, rack)
        costs = []
        for replica, (device, host) in enumerate(prefixes):
            overlap = device + HOST_CREDIT * host
            prefill = rack.prefill_tokens.loads[replica] / block
            decode = rack.active_tokens.loads[replica] / block
            costs.append(max(0.0, prefill + incoming - overlap) + decode)
        best = ReplicaId(costs.index(min(costs)))
        device, host = prefixes[best]
        return Placement(best, (device + host) * block)
