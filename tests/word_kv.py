"""What engines of words hold: blocks of a conversation, the longest unused evicted first."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any
from zlib import crc32

import msgspec

from agent_runtime.backends.kv_event_wire import BlockRemoved, BlockStored, WireEvent

BLOCK = 4
"""Words."""


class WordKv:
    """What one engine holds, and what it publishes of that.

    Args:
        salt: Makes its block hashes its own.
        num_blocks: What it has room for.
        publish: Told of every change.
    """

    def __init__(
        self, salt: int, num_blocks: int, publish: Callable[[list[WireEvent]], None]
    ) -> None:
        self._salt = salt
        self._num_blocks = num_blocks
        self._publish = publish
        self._held: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def compute(self, words: Sequence[str], session_id: str | None) -> int:
        """Put a context in; return how many of its leading words were there."""
        prefixes = [tuple(words[: end + 1]) for end in range(BLOCK - 1, len(words), BLOCK)]
        num_hit = 0
        while num_hit < len(prefixes) and prefixes[num_hit] in self._held:
            self._held.move_to_end(prefixes[num_hit])
            num_hit += 1
        new = prefixes[num_hit:]
        stale = [self._held.pop(prefix) for prefix in new if prefix in self._held]
        while new and self._held and len(self._held) + len(new) > self._num_blocks:
            stale.append(self._held.popitem(last=False)[1])
        events: list[WireEvent] = [BlockRemoved([one], "GPU", group_idx=0) for one in stale]
        if new:
            hashes: list[int | bytes] = [self._hash(prefix) for prefix in new]
            parent = self._hash(prefixes[num_hit - 1]) if num_hit else None
            tokens = [crc32(w.encode()) for w in words[num_hit * BLOCK : len(prefixes) * BLOCK]]
            self._held |= {prefix: self._hash(prefix) for prefix in new}
            stored = BlockStored(hashes, parent, tokens, BLOCK, None, "GPU", None)
            kind = {"group_idx": 0, "kv_cache_spec_kind": "full_attention"}
            events.append(msgspec.structs.replace(stored, **kind, session_id=session_id))
        if events:
            self._publish(events)
        return num_hit * BLOCK

    def num_there(self, words: Sequence[str]) -> int:
        """Return how many leading words of a context are there: the truth."""
        end = BLOCK
        while end <= len(words) and tuple(words[:end]) in self._held:
            end += BLOCK
        return end - BLOCK

    def _hash(self, prefix: tuple[str, ...]) -> int:
        data = f"{self._salt}\0{' '.join(prefix)}".encode()
        return int.from_bytes(blake2b(data, digest_size=8).digest())


def chat_words(messages: Sequence[dict[str, Any]]) -> list[str]:
    """Return a conversation's tokens."""
    words = []
    for message in messages:
        words += [f"<{message['role']}>", *str(message.get("content") or "").split()]
    return words
