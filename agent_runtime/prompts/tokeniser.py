"""An approximate tokeniser: the base install carries no model's vocabulary.

Text is cut as byte-pair tokenisers first cut it (words with their space, digits by threes, runs of
punctuation or white space), long words further. Counts are for load, not for billing: Python's own
manual comes to 3.7 characters a token, its library's code to 3.3, indented JSON to 2. A run of
spaces or of newlines is one token, however long. Ids are stable across processes and machines.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Sequence

_PIECE = re.compile(r" ?[A-Za-z]{1,8}|\d{1,3}| ?[^\sA-Za-z\d]{1,2}|\n+| +|\s+")

_ASCII_PIECE = re.compile(
    rb" ?[A-Za-z]{1,8}|[0-9]{1,3}| ?[^ \t\n\r\f\v\x1c-\x1fA-Za-z0-9]{1,2}|\n+| +"
    rb"|[ \t\n\r\f\v\x1c-\x1f]+"
)
"""The same for the bytes of ASCII text, which need not be encoded piece by piece."""


def cut(text: str) -> list[str]:
    """Return the pieces of ``text`` that are one token each; joined, they are ``text``."""
    return _PIECE.findall(text)


def tokenise(text: str) -> array[int]:
    """Return the token ids of ``text``, each 32 bits; O(len(text))."""
    if text.isascii():
        return array("I", map(zlib.crc32, _ASCII_PIECE.findall(text.encode("ascii"))))
    return array(
        "I",
        (zlib.crc32(piece.encode("utf-8", "surrogatepass")) for piece in _PIECE.findall(text)),
    )


MOST_LETTERS = 4
"""A token, of text that may be as long as is allowed: longer text is looked at before it is cut."""
_STRETCH = 1 << 18


def is_longer(texts: Sequence[str], most_tokens: int) -> bool:
    """Return whether texts have certainly more tokens, in all; looks no further than it must.

    Cutting up 64 MiB takes many seconds, which nobody should wait for only to be told no.
    """
    if sum(map(len, texts)) <= MOST_LETTERS * most_tokens:
        return False
    num_tokens = 0
    for text in texts:
        for start in range(0, len(text), _STRETCH):
            # Where a stretch ends, one token is cut in two.
            num_tokens += max(0, len(_PIECE.findall(text, start, start + _STRETCH)) - 1)
            if num_tokens > most_tokens:
                return True
    return False


def marker(name: str) -> int:
    """Return the id of a token that is no piece of text, such as a role marker.

    As any two tokens, it shares its id with a piece of text by chance of 2**-32.
    """
    return zlib.crc32(name.encode(), 0x50414E4A)
