"""What a router believes each replica has cached, from where it sent what."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from scheduler.ids import ReplicaId


class RoutedBlocks:
    """The blocks sent to each replica of late, the least recently used forgotten first.

    Args:
        num_replicas: Replicas.
        budget_blocks: Remembered for each, at most.

    Cost: O(blocks of the prompt) to remember one, O(log blocks) to match one: a hash stands for
        its block and all before it, and heads are forgotten after tails.
    """

    __slots__ = ("_blocks", "_budget_blocks")

    def __init__(self, num_replicas: int, budget_blocks: int) -> None:
        self._blocks: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(num_replicas)]
        self._budget_blocks = budget_blocks

    def num_matched(self, replica_id: ReplicaId, hashes: Sequence[int]) -> int:
        """Return how many leading blocks of a chain were sent there."""
        blocks = self._blocks[replica_id]
        low, high = 0, len(hashes)
        while low < high:
            middle = (low + high + 1) // 2
            if hashes[middle - 1] in blocks:
                low = middle
            else:
                high = middle - 1
        return low

    def num_blocks(self, replica_id: ReplicaId) -> int:
        """Return how many blocks are remembered of a replica."""
        return len(self._blocks[replica_id])

    def remember(self, replica_id: ReplicaId, hashes: Sequence[int]) -> None:
        """Take note that a chain was sent to a replica."""
        blocks = self._blocks[replica_id]
        for block in reversed(hashes):
            blocks[block] = None
            blocks.move_to_end(block)
        for _ in range(len(blocks) - self._budget_blocks):
            blocks.popitem(last=False)
