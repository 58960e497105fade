"""How much of a replica's KV cache is in use, and by whom, added up over time."""

from __future__ import annotations

from hw_model.engine.block_pool import BlockPool


class KvUsage:
    """Integrals over the blocks of a pool.

    Whoever changes the pool calls ``account`` before. Cost: O(1).

    Attributes:
        now_s: Until when time is accounted for.
        used_block_s: Of the blocks that hold KV, held or cached.
        active_block_s: Of those that requests hold.
        peak_blocks: Most blocks holding KV at once, of the moments that ``note_peak`` saw.
    """

    __slots__ = ("_pool", "active_block_s", "now_s", "peak_blocks", "used_block_s")

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self.now_s = 0.0
        self.used_block_s = 0.0
        self.active_block_s = 0.0
        self.peak_blocks = 0

    @property
    def used_ratio(self) -> float:
        """Share of blocks that hold KV now."""
        return 1 - self._pool.num_empty / self._pool.num_blocks

    @property
    def active_ratio(self) -> float:
        """Share of blocks that requests hold now."""
        return 1 - (self._pool.num_free + self._pool.num_kept) / self._pool.num_blocks

    def account(self, now_s: float) -> None:
        """Take the pool as it is for what it was since the last call."""
        pool, elapsed_s = self._pool, now_s - self.now_s
        self.used_block_s += (pool.num_blocks - pool.num_empty) * elapsed_s
        num_free = pool.num_free + pool.num_kept
        self.active_block_s += (pool.num_blocks - num_free) * elapsed_s
        self.now_s = now_s

    def note_peak(self) -> None:
        """Look how many blocks hold KV now."""
        self.peak_blocks = max(self.peak_blocks, self._pool.num_blocks - self._pool.num_empty)
