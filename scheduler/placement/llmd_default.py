"""llm-d's default profile: queue, KV utilisation and prefix, weighted."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.placement.cached_prefix import cached_prefixes
from scheduler.policy import Placement
from scheduler.rack import Rack, ReplicaProbe
from scheduler.session import Session, Turn

QUEUE_WEIGHT, KV_WEIGHT, PREFIX_WEIGHT = 2.0, 2.0, 3.0
"""``loadDefaultConfig``."""

HOST_CREDIT = 0.8
"""What a block in host memory is worth of one in HBM; ``DefaultKVCacheBackendConfig``."""


class LlmdDefault:
    """``2 queue + 2 (1 - KV usage) + 3 prefix``, the most of it; each between 0 and 1.

    The queue scores ``(longest - own) / (longest - shortest)``, 1 where all are equal; the prefix
    the share of the prompt's full blocks that are cached, by KV events. Equal scores take turns.
    Without metrics llm-d leaves replicas unscored, so all are equal and take turns.

    Source: llm-d-router at ebab687: weights ``pkg/epp/config/loader/defaults.go``; scorers
    ``queuedepth``, ``kvcacheutilization`` and ``preciseprefixcache``, picker ``maxscore`` under
    ``pkg/epp/framework/plugins/scheduling``.

    Cost: O(replicas) a turn, as there.
    """

    def __init__(self) -> None:
        self._next_of_equals = 0

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the highest score; equals take turns."""
        probe, block = rack.probe, rack.fleet.block_size_tokens
        prefixes = cached_prefixes(turn, rack, turn.num_prompt_tokens)
        scores = [0.0] * rack.num_replicas if probe is None else _load_scores(probe, len(prefixes))
        num_blocks = turn.num_prompt_tokens // block
        if num_blocks:
            for replica, prefix in enumerate(prefixes):
                scores[replica] += PREFIX_WEIGHT * prefix.blocks(HOST_CREDIT) / num_blocks
        highest = max(scores)
        best = self._take_turns([r for r, score in enumerate(scores) if score == highest])
        return Placement(ReplicaId(best), sum(prefixes[best]) * block)

    def _take_turns(self, equals: list[int]) -> int:
        """Return the next of equals, by ``RotateScoredEndpoints``: one counter for all ties."""
        if len(equals) == 1:
            return equals[0]
        chosen = equals[self._next_of_equals % len(equals)]
        self._next_of_equals += 1
        if self._next_of_equals >= len(equals):
            self._next_of_equals = 0
        return chosen


def _load_scores(probe: ReplicaProbe, num_replicas: int) -> list[float]:
    replicas = [ReplicaId(replica) for replica in range(num_replicas)]
    queues = [probe.num_waiting(replica) for replica in replicas]
    longest, spread = max(queues), max(queues) - min(queues)
    return [
        QUEUE_WEIGHT * ((longest - queues[replica]) / spread if spread else 1.0)
        + KV_WEIGHT * (1 - probe.kv_usage(replica))
        for replica in replicas
    ]
