"""New prefill tokens times batch size: no knobs."""

from __future__ import annotations

import math

from scheduler.ids import ReplicaId
from scheduler.placement.cached_prefix import cached_prefixes
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn

HOST_CREDIT = 0.8
"""What a block in host memory is worth of one in HBM; ``TransferCredits::default``."""


class LMetric:
    """``(new prefill + active prefill tokens) * (active requests + 1)``, the least of it.

    ``new prefill = ceil(prompt - credit)``, where ``credit`` is the tokens of the blocks in HBM and
    ``HOST_CREDIT`` times those that go on in host memory. The block with the last prompt token is
    never credited: it must be computed for the first token. New prefill stays active until then.
    Without KV events every prompt is new.

    Source: LMetric (arXiv 2603.15202) as in vllm-router 0.1.17 ``src/policies/kv_aware.rs``,
    ``cost_components`` and ``MultiplicativeScorer``, temperature 0.

    Cost: O(replicas) a turn, as there.
    """

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the least cost, the lowest id among equals."""
        block, num_tokens = rack.fleet.block_size_tokens, turn.num_prompt_tokens
        prefill, requests = rack.prefill_tokens.loads, rack.active_turns.loads
        new_prefill = [
            math.ceil(num_tokens - prefix.blocks(HOST_CREDIT) * block)
            for prefix in cached_prefixes(turn, rack, num_tokens - 1)
        ]
        costs = [
            (new + prefill[replica]) * (requests[replica] + 1)
            for replica, new in enumerate(new_prefill)
        ]
        best = costs.index(min(costs))
        return Placement(ReplicaId(best), num_tokens - new_prefill[best])
