"""Dynamo's KV router: blocks to prefill plus blocks to decode with."""

from __future__ import annotations

import numpy as np

from scheduler.ids import ReplicaId
from scheduler.placement.active_blocks import ActiveBlocks
from scheduler.placement.cached_prefix import cached_prefixes
from scheduler.policy import Placement
from scheduler.rack import Rack, ReplicaFleet
from scheduler.session import Session, Turn

HOST_CREDIT = 0.75
"""What a block in host memory is worth of one in HBM; ``host_cache_hit_weight``."""

TUNED_PREFILL_SCALE = 20.0
"""``prefill_load_scale`` for contexts so long that a step of prefill outweighs many of decode."""


class KvCost:
    """``scale * max(0, (active prefill + prompt) / block - overlap) + decode blocks``, the least.

    Overlap is by KV events: blocks in HBM, and ``HOST_CREDIT`` times those that go on in host
    memory. Active prefill is what was not expected to be cached of the prompts without a first
    token. Decode blocks are the distinct prompt blocks of active turns, this one's with them.
    Without KV events overlap is 0: cost is load.

    Source: NVIDIA Dynamo 1.6.1 ``lib/kv-router/src/scheduling/selector``, ``worker_logit`` and
    ``minimum_cost_index``; ``sequences/prompt_registry.rs``, ``potential_decode_blocks``.

    Args:
        fleet: The replicas.
        seed: Of the choice among equals.
        prefill_scale: What a block to prefill costs in blocks to decode with.

    Cost: O(replicas) a turn, as there.
    """

    def __init__(self, fleet: ReplicaFleet, seed: int, prefill_scale: float = 1.0) -> None:
        self._prefill_scale = prefill_scale
        self._active = ActiveBlocks(fleet)
        self._rng = np.random.default_rng([seed, 3])

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the least cost, any of equals."""
        block = rack.fleet.block_size_tokens
        prefixes = cached_prefixes(turn, rack, turn.num_prompt_tokens)
        decode_blocks = self._active.with_turn(turn)
        scale, num_tokens = self._prefill_scale, turn.num_prompt_tokens
        costs = [
            scale * max(0.0, (prefill + num_tokens) / block - prefix.blocks(HOST_CREDIT)) + decode
            for prefill, prefix, decode in zip(
                rack.prefill_tokens.loads, prefixes, decode_blocks, strict=True
            )
        ]
        least = min(costs)
        equals = [replica for replica, cost in enumerate(costs) if cost == least]
        best = equals[0] if len(equals) == 1 else equals[int(self._rng.integers(len(equals)))]
        self._active.begin(turn, ReplicaId(best))
        return Placement(ReplicaId(best), round(prefixes[best].blocks(HOST_CREDIT) * block))

    def turn_ended(self, turn: Turn, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Its blocks are active no longer."""
        self._active.end(turn)

    def session_closed(self, session: Session, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Forget its chain."""
        self._active.forget(session)
