"""Several listeners to one scheduler's decisions."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.decision import Decision


def all_of(*listeners: Callable[[Decision], None] | None) -> Callable[[Decision], None] | None:
    """Return what tells all listeners that are there of a decision; None if none is."""
    there = [listener for listener in listeners if listener is not None]
    if len(there) <= 1:
        return there[0] if there else None

    def tell_all(decision: Decision) -> None:
        for listener in there:
            listener(decision)

    return tell_all
