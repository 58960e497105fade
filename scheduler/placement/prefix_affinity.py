"""Turns follow their longest prefix, by the router's own memory, unless load is out of balance."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.placement.routed_prefixes import RoutedPrefixes
from scheduler.policy import Placement
from scheduler.rack import Rack, ReplicaFleet
from scheduler.session import Session, Turn

IMBALANCE_TURNS, IMBALANCE_RATIO = 64, 1.5
"""vllm-router 0.1.17's command-line defaults, ``RouterArgs``."""

MATCH_SHARE = 0.5
"""``CacheAwareConfig::default`` there and SGLang's; the command line's is 0.3."""


class PrefixAffinity:
    """Cache-aware routing of SGLang and vllm-router, in blocks where they count characters.

    Out of balance, that is where the most loaded replica has more than ``IMBALANCE_TURNS`` active
    turns more than the least and more than ``IMBALANCE_RATIO`` times as many, the least loaded is
    taken. Else the least loaded of those that match most, if they match more than ``MATCH_SHARE``
    of the prompt; and where none does, the one with the smallest tree.

    Source: vllm-router 0.1.17 ``src/policies/cache_aware.rs``, ``select_prepared``; the smallest
    tree is SGLang's (``docs/router/router.md``), where vllm-router takes the least loaded: as good
    under load, but an idle rack's sessions would all begin on replica 0. There a tree forgets whole
    leaves every two minutes, here tails as soon as it is full.

    Cost: O(replicas) a turn, as there, and O(appended blocks).
    """

    def __init__(self, fleet: ReplicaFleet) -> None:
        budget = fleet.max_context_tokens // fleet.block_size_tokens
        self._routed = [RoutedPrefixes(budget) for _ in range(fleet.num_replicas)]

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the longest match, or what balance asks for."""
        block, loads = rack.fleet.block_size_tokens, rack.active_turns.loads
        hashes = turn.block_hashes[: turn.num_prompt_tokens // block]
        matched = [routed.num_matched(hashes) for routed in self._routed]
        least, most, best = min(loads), max(loads), max(matched)
        if most - least > IMBALANCE_TURNS and most > IMBALANCE_RATIO * least:
            replica = rack.active_turns.least()
        elif best * block > MATCH_SHARE * turn.num_prompt_tokens:
            equals = [ReplicaId(r) for r, num_blocks in enumerate(matched) if num_blocks == best]
            replica = min(equals, key=lambda r: loads[r])
        else:
            replica = self._smallest_tree(loads)
        self._routed[replica].remember(hashes)
        return Placement(replica, matched[replica] * block)

    def _smallest_tree(self, loads: list[int]) -> ReplicaId:
        sizes = [routed.num_blocks for routed in self._routed]
        return min(map(ReplicaId, range(len(sizes))), key=lambda r: (sizes[r], loads[r]))
