"""A prompt without messages: a text or tokens to go on with, as they are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from agent_runtime.prompts.block_hashes import Prompt, extend_hashes


class RawPrompt:
    """A prompt and its block hashes; O(tokens).

    Args:
        tokens: Its ids, >= 1.
        block_size_tokens: Tokens per KV block.
    """

    __slots__ = ("_block_size", "_hashes", "_tokens")

    def __init__(self, tokens: array[int], block_size_tokens: int) -> None:
        self._tokens = tokens
        self._block_size = block_size_tokens
        self._hashes: list[int] = []
        extend_hashes(self._hashes, tokens, block_size_tokens)

    @property
    def num_tokens(self) -> int:
        """Of the prompt."""
        return len(self._tokens)

    def digests(self) -> list[bytes]:
        """Return per full block a digest of it and all before it; at least one of them all."""
        if not self._hashes:
            return [blake2b(self._tokens.tobytes(), digest_size=16).digest()]
        return [block.to_bytes(8) for block in self._hashes]

    def digest_with(self, reply: array[int]) -> bytes | None:
        """Return the digest by which a prompt is known that goes on after this reply.

        None where the reply fills no block: what others begin with too is no sign.
        """
        hashes = self.plan(reply).block_hashes
        return hashes[-1].to_bytes(8) if len(hashes) > len(self._hashes) else None

    def plan(self, reply: array[int]) -> Prompt:
        """Return the prompt with the hashes that a reply of these tokens leads to."""
        hashes = self._hashes[:]
        extend_hashes(hashes, self._tokens + reply, self._block_size)
        return Prompt(len(self._tokens), tuple(hashes))


def token_array(tokens: Sequence[int]) -> array[int]:
    """Return token ids as they are hashed.

    Raises:
        OverflowError: One is negative or beyond 32 bits.
    """
    return array("I", tokens)
