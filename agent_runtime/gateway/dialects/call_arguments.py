"""A call's arguments as an object, where an API wants them parsed."""

from __future__ import annotations

import json
from typing import Any


def parsed_arguments(arguments: str) -> dict[str, Any]:
    """Return the arguments; an empty object for those that a limit cut in the middle."""
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
