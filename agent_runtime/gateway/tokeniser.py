"""An approximate tokeniser: the base install carries no model's vocabulary.

Text is cut as byte-pair tokenisers first cut it (words with their space, digits by threes, runs of
punctuation or white space), long words further. Counts are for load, not for billing: expect about
four characters of English a token. Ids are stable across processes and machines.
"""

from __future__ import annotations

import re
import zlib
from array import array

_PIECE = re.compile(r" ?[A-Za-z]{1,8}|\d{1,3}| ?[^\sA-Za-z\d]{1,2}|\n+| +|\s+")


def tokenise(text: str) -> array[int]:
    """Return the token ids of ``text``, each 32 bits; O(len(text))."""
    return array(
        "I",
        (zlib.crc32(piece.encode("utf-8", "surrogatepass")) for piece in _PIECE.findall(text)),
    )


def marker(name: str) -> int:
    """Return the id of a token that no text contains, such as a role marker."""
    return zlib.crc32(name.encode(), 0x50414E4A)
