"""Members of JSON that somebody else wrote, as what they should be or as nothing.

Replies of engines pass through untouched, whatever is in them; what is read of them on the way must
not end the turn because a member is of another kind than it should be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 200
"""Levels of a body; what reads it goes down into them."""
MAX_ITEMS = 100_000
"""Of a conversation: messages, or parts of all of them. Millions, for which a few megabytes are
enough, take seconds to go through."""


def an_object(value: object) -> dict[str, Any]:
    """Return an object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list; none of anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def a_count(value: object) -> int | None:
    """Return a whole number, 0 or more; None for anything else."""
    is_one = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_one and isinstance(value, int) else None


def a_text(value: object) -> str | None:
    """Return a text; None for anything else."""
    return value if isinstance(value, str) else None


def has_more_brackets(body: bytes, most: int) -> bool:
    """Return whether a body has more opening brackets than that, and could be so deep.

    It looks for one after the other, and no further than has to be: to count takes longer.
    """
    for bracket in (b"[", b"{"):
        at = body.find(bracket)
        while at >= 0:
            if most == 0:
                return True
            most -= 1
            at = body.find(bracket, at + 1)
    return False


def shape_problem(value: object, most_levels: int, most_in_level: int) -> str | None:
    """Return what is wrong with how objects and lists, as JSON's, lie in each other, if anything.

    It goes down into none, so nesting can't exhaust the stack.

    Args:
        value: Of JSON.
        most_levels: Of objects and lists within each other.
        most_in_level: Of objects and lists within as many others.
    """
    level = [value]
    for _ in range(most_levels + 1):
        level = [
            inner
            for outer in level
            for inner in _members(outer)
            if type(inner) is dict or type(inner) is list  # a third of the time of isinstance
        ]
        if not level:
            return None
        if len(level) > most_in_level:
            return f"has more than {most_in_level:,} objects and lists side by side"
    return f"is nested in more than {most_levels} levels"


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
