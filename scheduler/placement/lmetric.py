"""New prefill tokens times batch size: no knobs."""

from __future__ import annotations

import math

from scheduler.ids import ReplicaId
from scheduler.placement.cached_prefix import cached_prefixes
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn

HOST_CREDIT = 0.8


class LMetric:
    """``(new prefill + active prefill tokens) * (active requests + 1)``, the least of it.

    Source: LMetric (arXiv 2603.15202) as in vllm-router 0.1.17 ``kv_aware``, temperature 0.
    """

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the least cost, the lowest id among equals."""
        block = rack.fleet.block_size_tokens
        prefixes = cached_prefixes(turn, rack)
        costs = []
        for replica, (device, host) in enumerate(prefixes):
            known = (device + HOST_CREDIT * host) * block
            new_prefill = math.ceil(turn.num_prompt_tokens - known)
            prefill = rack.prefill_tokens.loads[replica]
            costs.append((new_prefill + prefill) * (rack.active_turns.loads[replica] + 1))
        best = ReplicaId(costs.index(min(costs)))
        device, host = prefixes[best]
        return Placement(best, (device + host) * block)
