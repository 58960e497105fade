"""A generated prompt that grows at its end, and the ids of its KV blocks."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.workload.block_id_runs import BlockIdRun, clipped, joined, num_blocks

SCOPE_SIZE = 1 << 32
"""Global block ids are a scope's number times this, plus a position or a count."""


class GrowingContext:
    """What stands at its beginning, shared with others, then blocks of its own.

    Args:
        shared: Ids of the leading full blocks that it shares, canonical.
        num_tokens: How long it is; what goes beyond ``shared`` is its own.
        own_first: The first id of its own blocks.
        block_size_tokens: Tokens in a block.

    Invariant: ids from ``_own_first`` on belong to this context's current history alone.
    """

    __slots__ = ("_block_size", "_own_first", "_shared", "num_tokens")

    def __init__(
        self,
        shared: Sequence[BlockIdRun],
        num_tokens: int,
        own_first: int,
        block_size_tokens: int,
    ) -> None:
        self._shared = tuple(shared)
        self._own_first = own_first
        self._block_size = block_size_tokens
        self.num_tokens = num_tokens

    @property
    def num_shared_blocks(self) -> int:
        """How many leading blocks it shares."""
        return num_blocks(self._shared)

    def replace_history(self, num_tokens: int, own_first: int) -> None:
        """Forget everything after what is shared."""
        self.num_tokens, self._own_first = num_tokens, own_first

    def next_free_id(self, num_tokens: int) -> int:
        """Return the first id that a context of ``num_tokens`` does not use."""
        num_own = num_tokens // self._block_size - self.num_shared_blocks
        return self._own_first + max(0, num_own)

    def runs(self, num_tokens: int) -> tuple[BlockIdRun, ...]:
        """Return the ids of the full blocks of the first ``num_tokens``."""
        num_all = num_tokens // self._block_size
        num_own = num_all - self.num_shared_blocks
        if num_own <= 0:
            return clipped(self._shared, 0, num_all)
        return joined((*self._shared, (self._own_first, self._own_first + num_own - 1)))


def scope_run(scope: int, num_tokens: int, block_size_tokens: int) -> tuple[BlockIdRun, ...]:
    """Return the ids of the full blocks of a text that is the same wherever its scope is."""
    num_full = num_tokens // block_size_tokens
    first = scope * SCOPE_SIZE
    return ((first, first + num_full - 1),) if num_full else ()
