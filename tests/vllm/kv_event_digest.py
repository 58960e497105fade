"""KV events of two engines that hash differently, made comparable.

Imported by two interpreters, one of which has only vLLM: standard library only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable

Told = tuple[str, "Hashable | None", Iterable[Hashable]]
"""``("stored", hash before them, hashes)`` or ``("removed", None, hashes)``."""


class KvEventDigest:
    """A digest of events in order; hashes count by the order in which they first occur."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._digest = hashlib.sha256()
        self.num_blocks = 0

    def tell(self, events: Iterable[Told]) -> None:
        """Take in events; one that removes many blocks equals many that remove one each."""
        for kind, parent, hashes in events:
            parent_number = None if parent is None else self._number(parent)
            numbers = [self._number(block_hash) for block_hash in hashes]
            self.num_blocks += len(numbers)
            parts = [[number] for number in numbers] if kind == "removed" else [numbers]
            for part in parts:
                self._digest.update(f"{kind} {parent_number} {part}\n".encode())

    def result(self) -> list[int | str]:
        """Return the number of blocks stored and removed, and the digest."""
        return [self.num_blocks, self._digest.hexdigest()[:16]]

    def _number(self, block_hash: Hashable) -> int:
        return self._numbers.setdefault(block_hash, len(self._numbers))
