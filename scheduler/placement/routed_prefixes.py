"""What a router believes a replica has cached, from what it sent there."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from hw_model.engine.block_run import common_length


class _Stretch:
    """Blocks in a row that nothing branches off."""

    __slots__ = ("hashes", "num_children", "parent", "used")

    def __init__(self, parent: _Stretch | None, hashes: list[int], used: int) -> None:
        self.parent = parent
        self.hashes = hashes
        self.num_children = 0
        self.used = used  # number of the chain that last went through it


class RoutedPrefixes:
    """The prefixes sent to one replica of late: a radix tree, the least recently used tail goes.

    Args:
        budget_blocks: Blocks remembered at most.

    Cost: O(log blocks) to match a chain or to go over what is known of it, for each stretch on its
        path, and O(new blocks) to remember; paths are as short as chains seldom branch.

    Invariant: a stretch is found by its first hash, which tells all before it; for every stretch
        without children the heap has an entry with its latest use, beside stale ones.
    """

    __slots__ = ("_budget_blocks", "_by_first", "_heap", "_num_chains", "_num_pushed", "num_blocks")

    def __init__(self, budget_blocks: int) -> None:
        self.num_blocks = 0
        self._budget_blocks = budget_blocks
        self._by_first: dict[int, _Stretch] = {}
        self._heap: list[tuple[int, int, _Stretch]] = []
        self._num_chains = 0
        self._num_pushed = 0  # tells equal entries apart

    def num_matched(self, hashes: Sequence[int]) -> int:
        """Return how many leading blocks of a chain were sent there; changes nothing."""
        position = 0
        while position < len(hashes):
            stretch = self._by_first.get(hashes[position])
            if stretch is None:
                break
            length = common_length(stretch.hashes, 0, hashes, position, len(hashes))
            position += length
            if length < len(stretch.hashes):
                break
        return position

    def remember(self, hashes: Sequence[int]) -> None:
        """Take note that a chain was sent there."""
        self._num_chains += 1
        last: _Stretch | None = None
        position = 0
        while position < len(hashes):
            stretch = self._by_first.get(hashes[position])
            if stretch is None:
                last = self._append(last, list(hashes[position:]))
                break
            length = common_length(stretch.hashes, 0, hashes, position, len(hashes))
            if length < len(stretch.hashes):
                stretch = self._cut(stretch, length)
            stretch.used = self._num_chains
            position += length
            last = stretch
        if last is not None and last.num_children == 0:
            self._push(last)
        self._make_room()

    def _append(self, last: _Stretch | None, hashes: list[int]) -> _Stretch:
        self.num_blocks += len(hashes)
        if last is not None and last.num_children == 0:
            last.hashes.extend(hashes)
            return last
        stretch = _Stretch(last, hashes, self._num_chains)
        if last is not None:
            last.num_children += 1
        self._by_first[hashes[0]] = stretch
        return stretch

    def _cut(self, stretch: _Stretch, length: int) -> _Stretch:
        """Cut a stretch; it stays the tail, as old as it is. Return the head."""
        head = _Stretch(stretch.parent, stretch.hashes[:length], stretch.used)
        head.num_children = 1
        self._by_first[head.hashes[0]] = head
        del stretch.hashes[:length]
        self._by_first[stretch.hashes[0]] = stretch
        stretch.parent = head
        return head

    def _make_room(self) -> None:
        while self.num_blocks > self._budget_blocks:
            used, _, leaf = self._heap[0]
            if used != leaf.used or leaf.num_children or not leaf.hashes:
                heapq.heappop(self._heap)
                continue
            num_kept = max(0, len(leaf.hashes) - (self.num_blocks - self._budget_blocks))
            self.num_blocks -= len(leaf.hashes) - num_kept
            if num_kept == 0:
                self._remove(leaf)
            del leaf.hashes[num_kept:]

    def _remove(self, leaf: _Stretch) -> None:
        del self._by_first[leaf.hashes[0]]
        parent = leaf.parent
        if parent is not None:
            parent.num_children -= 1
            if parent.num_children == 0:
                self._push(parent)

    def _push(self, leaf: _Stretch) -> None:
        if len(self._heap) > 4 * len(self._by_first):
            leaves = [s for s in self._by_first.values() if s.num_children == 0]
            self._heap = [(s.used, number, s) for number, s in enumerate(leaves)]
            heapq.heapify(self._heap)
            self._num_pushed = len(leaves)
        self._num_pushed += 1
        heapq.heappush(self._heap, (leaf.used, self._num_pushed, leaf))
