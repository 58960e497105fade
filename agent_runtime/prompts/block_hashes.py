"""Chained hashes of KV blocks: equal hashes are equal tokens, and so are all before them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

_ROOT = bytes(8)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a turn computes.

    Attributes:
        num_tokens: Of the prompt, the opening of the reply included.
        block_hashes: Of its full blocks, followed by those that the planned reply fills.
        token_ids: Of the prompt and the planned reply.
        salt: What keeps its blocks apart from others', or None.
    """

    num_tokens: int
    block_hashes: tuple[int, ...]
    token_ids: Sequence[int]
    salt: str | None = None


def root_of(salt: str | None) -> bytes:
    """Return what the chain of a prompt with a salt begins with: other salts, other hashes."""
    if salt is None:
        return _ROOT
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def extend_hashes(
    hashes: list[int], tokens: array[int], block_size: int, root: bytes = _ROOT
) -> None:
    """Append the chained hashes of the full blocks that ``hashes`` does not cover yet.

    Args:
        hashes: So far.
        tokens: All of them.
        block_size: Tokens of a block.
        root: See ``root_of``.
    """
    parent = hashes[-1].to_bytes(8) if hashes else root
    for start in range(len(hashes) * block_size, len(tokens) - block_size + 1, block_size):
        block = tokens[start : start + block_size].tobytes()
        parent = blake2b(parent + block, digest_size=8).digest()
        hashes.append(int.from_bytes(parent))
