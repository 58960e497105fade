"""A prompt without messages: a text or tokens to go on with, as they are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from agent_runtime.prompts.block_hashes import Prompt, extend_hashes, root_of

STRETCH_BYTES = 64


class RawPrompt:
    """A prompt and its block hashes; O(tokens).

    Args:
        tokens: Its ids, >= 1.
        block_size_tokens: Tokens per KV block.
        salt: Prompts with other salts share no block with it.
    """

    __slots__ = ("_block_size", "_hashes", "_root", "_salt", "_tokens")

    def __init__(self, tokens: array[int], block_size_tokens: int, salt: str | None = None) -> None:
        self._salt, self._root = salt, root_of(salt)
        self._tokens = tokens
        self._block_size = block_size_tokens
        self._hashes: list[int] = []
        extend_hashes(self._hashes, tokens, block_size_tokens, self._root)

    @property
    def num_tokens(self) -> int:
        """Of the prompt."""
        return len(self._tokens)

    def plan(self, reply: array[int]) -> Prompt:
        """Return the prompt with the hashes that a reply of these tokens leads to."""
        hashes = self._hashes[:]
        context = self._tokens + reply
        extend_hashes(hashes, context, self._block_size, self._root)
        return Prompt(len(self._tokens), tuple(hashes), context, self._salt)


class PromptTrail:
    """By what a raw prompt is known again when it goes on: digests of all up to every stretch.

    Stretches of text and not of blocks: where a reply joins a prompt in the middle of a word, the
    tokens are others when both come back, and the text is the same.

    Args:
        data: The text, or the tokens as bytes.
    """

    __slots__ = ("_data", "digests")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.digests: list[bytes] = []
        digest = b""
        for start in range(0, len(data) - STRETCH_BYTES + 1, STRETCH_BYTES):
            stretch = data[start : start + STRETCH_BYTES]
            digest = blake2b(digest + stretch, digest_size=16).digest()
            self.digests.append(digest)

    @classmethod
    def of_text(cls, text: str) -> PromptTrail:
        """Return that of a text."""
        return cls(text.encode("utf-8", "surrogatepass"))

    @property
    def whole(self) -> bytes:
        """Return a digest of all of it."""
        return blake2b(self._data, digest_size=16).digest()

    def digest_with(self, more: bytes) -> bytes | None:
        """Return the digest by which what goes on after this reply is known.

        None where the reply ends no stretch: what others begin with too is no sign.
        """
        digests = PromptTrail(self._data + more).digests
        return digests[-1] if len(digests) > len(self.digests) else None


def token_array(tokens: Sequence[int]) -> array[int]:
    """Return token ids as they are hashed.

    Raises:
        OverflowError: One is negative or beyond 32 bits.
    """
    return array("I", tokens)
