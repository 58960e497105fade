"""KV slots for requests: vLLM V1's ``KVCacheManager`` on top of the block pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hw_model.engine.block_pool import BlockPool
from hw_model.engine.block_run import NO_HIT, PrefixHit
from hw_model.engine.kv_events import KvEventLog
from hw_model.engine.request import EngineRequest


class KvManager:
    """Gives requests blocks for the tokens of a step, and finds what is cached.

    Attributes:
        reclaim: Frees blocks that are kept for nobody's request, and says whether it did; asked
            before a running request goes without.
        computed: ``(hashes, hash before them)`` of what was computed, for whoever set it to a list.

    Invariant: a request's table has ``num_committed_blocks`` committed blocks, then loose ones.
    """

    __slots__ = ("block_size_tokens", "computed", "enable_prefix_caching", "pool", "reclaim")

    def __init__(
        self,
        num_blocks: int,
        block_size_tokens: int,
        *,
        enable_prefix_caching: bool = True,
        log: KvEventLog | None = None,
    ) -> None:
        self.pool = BlockPool(num_blocks, log)
        self.reclaim: Callable[[], bool] | None = None
        self.computed: list[tuple[Sequence[int], int | None]] | None = None
        self.block_size_tokens = block_size_tokens
        self.enable_prefix_caching = enable_prefix_caching

    def find_cached(self, request: EngineRequest) -> PrefixHit:
        """Return the cached prefix of a request without blocks; the last token is never a hit."""
        if not self.enable_prefix_caching:
            return NO_HIT
        return self.pool.find_prefix(request.block_hashes, self.num_findable_blocks(request))

    def num_findable_blocks(self, request: EngineRequest) -> int:
        """Return the most blocks of a request without blocks that could be cached."""
        limit = (request.num_tokens - 1) // self.block_size_tokens
        return min(limit, len(request.block_hashes))

    def admit(self, request: EngineRequest, hit: PrefixHit, num_new_tokens: int) -> bool:
        """Give a request without blocks its hit and room for ``num_new_tokens`` after it.

        Returns:
            False, with nothing changed, when the pool is too full for the *whole* sequence, even
            if only a chunk of it is to be computed now (vLLM's ``scheduler_reserve_full_isl``).
        """
        if not self.can_admit(request, hit):
            return False
        self.pool.take_hit(request.table, hit)
        request.num_committed_blocks = hit.num_blocks
        request.num_computed_tokens = hit.num_blocks * self.block_size_tokens
        self.pool.allocate(request.table, self._blocks_for(num_new_tokens))
        self.commit(request, request.num_computed_tokens + num_new_tokens)
        return True

    def can_admit(self, request: EngineRequest, hit: PrefixHit) -> bool:
        """Return whether ``admit`` would succeed. A hit's free blocks are not free any more."""
        num_new_blocks = self._blocks_for(request.num_tokens) - hit.num_blocks
        return num_new_blocks + hit.num_free <= self.pool.num_free

    def grow(self, request: EngineRequest, num_new_tokens: int) -> bool:
        """Give a running request room for ``num_new_tokens`` more.

        Returns:
            False, with nothing changed, when the pool is too full.
        """
        block_size = self.block_size_tokens
        num_tokens = request.num_computed_tokens + num_new_tokens
        num_missing_tokens = num_tokens - request.table.num_blocks * block_size
        if num_missing_tokens > 0:
            num_new_blocks = -(-num_missing_tokens // block_size)
            while num_new_blocks > self.pool.num_free:
                if self.reclaim is None or not self.reclaim():
                    return False
            self.pool.allocate(request.table, num_new_blocks)
        # The tokens of a block must be known before it can be found.
        known = num_tokens - request.num_output_placeholders
        committed = request.num_committed_blocks
        if committed < len(request.block_hashes) and known // block_size > committed:
            self.commit(request, known)
        return True

    def grow_all(self, requests: Iterable[EngineRequest], num_new_tokens: int) -> bool:
        """``grow`` each in turn; return whether there was room for all."""
        block_size = self.block_size_tokens
        for request in requests:
            num_tokens = request.num_computed_tokens + num_new_tokens
            if num_tokens > request.table.num_blocks * block_size:
                if not self.grow(request, num_new_tokens):
                    return False
                continue
            committed = request.num_committed_blocks
            if committed < len(request.block_hashes):
                known = num_tokens - request.num_output_placeholders
                if known // block_size > committed:
                    self.commit(request, known)
        return True

    def release(self, request: EngineRequest) -> None:
        """Take back everything a request holds."""
        self.pool.release(request.table)
        request.num_committed_blocks = 0

    def commit(self, request: EngineRequest, num_tokens: int) -> None:
        """Make findable what the first ``num_tokens`` of a request fill of its blocks.

        As in vLLM, a step's blocks are findable from the moment the step is scheduled: whoever hits
        them is computed no earlier.
        """
        if not self.enable_prefix_caching:
            return
        full = min(num_tokens // self.block_size_tokens, len(request.block_hashes))
        if full > request.num_committed_blocks:
            start = request.num_committed_blocks
            hashes = request.block_hashes[start:full]
            self.pool.commit(request.table, hashes)
            request.num_committed_blocks = full
            if self.computed is not None:
                parent_hash = request.block_hashes[start - 1] if start else None
                self.computed.append((hashes, parent_hash))

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size_tokens)
