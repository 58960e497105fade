"""Turns follow their longest prefix, by the router's own memory, unless load is out of balance."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.placement.routed_blocks import RoutedBlocks
from scheduler.policy import Placement
from scheduler.rack import Rack, ReplicaFleet
from scheduler.session import Session, Turn

IMBALANCE_TURNS, IMBALANCE_RATIO, MATCH_SHARE = 64, 1.5, 0.3
"""vllm-router 0.1.17's command-line defaults."""


class PrefixAffinity:
    """Cache-aware routing of SGLang and vllm-router, in blocks where they count characters.

    Out of balance, that is where the most loaded replica has more than ``IMBALANCE_TURNS`` active
    turns more than the least and more than ``IMBALANCE_RATIO`` times as many, the least loaded is
    taken. Else the replica that matches more than ``MATCH_SHARE`` of the prompt, and where none
    does, the one with the smallest tree.

    Source: vllm-router 0.1.17 ``cache_aware``, sgl-model-gateway ``cache_aware``.
    """

    def __init__(self, fleet: ReplicaFleet) -> None:
        budget = fleet.max_context_tokens // fleet.block_size_tokens
        self._sent = RoutedBlocks(fleet.num_replicas, budget)
        self._block = fleet.block_size_tokens

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the longest match, or what balance asks for."""
        hashes = turn.block_hashes[: turn.num_prompt_tokens // self._block]
        loads = rack.active_turns.loads
        most, least = max(loads), min(loads)
        if most - least > IMBALANCE_TURNS and most > IMBALANCE_RATIO * least:
            replica = rack.active_turns.least()
        else:
            replica = self._by_prefix(turn, loads)
        matched = self._sent.num_matched(replica, hashes)
        self._sent.remember(replica, hashes)
        return Placement(replica, matched * self._block)

    def _by_prefix(self, turn: Turn, loads: list[int]) -> ReplicaId:
        chain = turn.block_hashes[: turn.num_prompt_tokens // self._block]
        replicas = [ReplicaId(r) for r in range(len(loads))]
        matches = [self._sent.num_matched(replica, chain) for replica in replicas]
        best = max(replicas, key=lambda replica: (matches[replica], -loads[replica]))
        if matches[best] * self._block > MATCH_SHARE * turn.num_prompt_tokens:
            return best
        return min(replicas, key=lambda replica: (self._sent.num_blocks(replica), loads[replica]))
