"""The headers by which clients, gateway and engines speak of sessions, spelt once."""

from __future__ import annotations

import re
import string
from urllib.parse import quote

SESSION_HEADER = "x-session-id"
DECISION_HEADER = "x-panjiu-decision"
HINT_PREFIX = "x-panjiu-"
"""Before the names of what clients know of their sessions, see ``PanjiuExtension``."""

MOST_URGENT, LEAST_URGENT = -64, 64
"""Priorities."""

_SAFE = string.punctuation.replace("%", "") + " "
_STAYS = re.compile(r"[A-Za-z0-9._/-]+")


def header_of(session_id: str) -> str:
    """Return an id as it stands in a header: non-ASCII and ``%`` are percent-encoded."""
    return session_id if _STAYS.fullmatch(session_id) else quote(session_id, safe=_SAFE)
