"""llm-d's default profile: queue, KV utilisation and prefix, weighted."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.placement.cached_prefix import cached_prefixes
from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn

QUEUE_WEIGHT, KV_WEIGHT, PREFIX_WEIGHT = 2.0, 2.0, 3.0


class LlmdDefault:
    """``2 queue + 2 (1 - KV usage) + 3 prefix``, the most of it; each between 0 and 1.

    The queue scores ``(longest - own) / (longest - shortest)``, 1 where all are equal; the prefix
    the share of the prompt's blocks that are cached, exactly known.

    Source: llm-d-router at ebab687, default profile (queue-scorer, kv-cache-utilization-scorer,
    prefix-cache-scorer, max-score-picker).
    """

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the replica of the highest score, the lowest id among equals."""
        replicas = [ReplicaId(replica) for replica in range(rack.num_replicas)]
        prefixes = cached_prefixes(turn, rack)
        probe, block = rack.probe, rack.fleet.block_size_tokens
        num_blocks = max(1, -(-turn.num_prompt_tokens // block))
        queues = [0 if probe is None else probe.num_waiting(replica) for replica in replicas]
        usages = [0.0 if probe is None else probe.kv_usage(replica) for replica in replicas]
        longest, shortest = max(queues), min(queues)
        spread = longest - shortest
        scores = [
            QUEUE_WEIGHT * ((longest - queues[r]) / spread if spread else 1.0)
            + KV_WEIGHT * (1 - usages[r])
            + PREFIX_WEIGHT * prefixes[r].device_blocks / num_blocks
            for r in replicas
        ]
        best = replicas[scores.index(max(scores))]
        device, host = prefixes[best]
        return Placement(best, (device + host) * block)
