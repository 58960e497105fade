"""Other people's text made safe to stand in HTML and SVG."""

from __future__ import annotations

import html

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNPRINTABLE = dict.fromkeys(
    (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0), 0xFFFE, 0xFFFF), _REPLACEMENT
)


def escaped(text: str) -> str:
    """Escape ``text`` for element content and quoted attributes alike.

    Characters that XML or UTF-8 can't carry (controls, lone surrogates) become U+FFFD.
    """
    encodable = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.escape(encodable.translate(_UNPRINTABLE), quote=True)
