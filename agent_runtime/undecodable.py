"""What msgspec raises of bytes that are not what they should be: text that is no UTF-8 among it."""

from __future__ import annotations

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
