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


def marker(name: str) -> int:
    """Return the id of a token that is no piece of text, such as a role marker.

    As any two tokens, it shares its id with a piece of text by chance of 2**-32.
    """
    return zlib.crc32(name.encode(), 0x50414E4A)
