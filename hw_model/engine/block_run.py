"""Blocks of one chain that share their fate, and who holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BlockRun:
    """Consecutive cached blocks of one chain with the same holders.

    Invariant: a run is in the free queue exactly if it has no holders. All its blocks are found by
        their hashes if ``is_found``; else all are younger copies of blocks in other runs.
    """

    __slots__ = (
        "following",
        "hashes",
        "holders",
        "is_found",
        "num_keeping",
        "previous",
        "start",
    )

    def __init__(self, start: int, hashes: list[int], *, is_found: bool) -> None:
        self.start = start  # position in the chain of its first block
        self.hashes = hashes
        self.is_found = is_found
        # A dict for its order: holders are visited the same way in every run of the program.
        self.holders: dict[BlockTable, None] = {}
        self.num_keeping = 0  # holders that hold it for nobody's request
        self.previous: BlockRun | None = None
        self.following: BlockRun | None = None


class BlockTable:
    """The blocks one request holds, in order: runs, then loose blocks not (yet) full or hashed.

    Args:
        keeps: Whether they are held for nobody's request, but kept for one to come.
        owner: The request that holds them, for events.

    Invariant: ``num_blocks`` is the sum over ``runs`` plus ``num_loose``; every run names this
    table as a holder.
    """

    __slots__ = ("keeps", "num_blocks", "num_loose", "owner", "runs")

    def __init__(self, *, keeps: bool = False, owner: str | None = None) -> None:
        self.keeps = keeps
        self.owner = owner
        self.runs: list[BlockRun] = []
        self.num_loose = 0
        self.num_blocks = 0


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """The cached blocks that a chain of hashes starts with.

    Attributes:
        parts: ``(run, offset, num_blocks)`` in chain order.
        num_blocks: Blocks hit.
        num_free: How many of them no request holds; taking the hit removes them from the queue.
    """

    parts: tuple[tuple[BlockRun, int, int], ...]
    num_blocks: int
    num_free: int


NO_HIT = PrefixHit((), 0, 0)


def common_length(
    known: Sequence[int], offset: int, hashes: Sequence[int], position: int, limit: int
) -> int:
    """Return how many of ``known[offset:]`` equal ``hashes[position:limit]``; the first does.

    A chained hash names all that came before it, so equality is monotone and can be bisected.
    """
    longest = min(len(known) - offset, limit - position)
    if known[offset + longest - 1] == hashes[position + longest - 1]:
        return longest
    equal, different = 1, longest
    while different - equal > 1:
        middle = (equal + different) // 2
        if known[offset + middle - 1] == hashes[position + middle - 1]:
            equal = middle
        else:
            different = middle
    return equal
