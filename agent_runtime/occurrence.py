"""Something that happens once, and is told to whoever listens, without a task that waits for it."""

from __future__ import annotations

from collections.abc import Callable


class Occurrence:
    """See the module.

    Attributes:
        has_happened: Whether it has.
    """

    __slots__ = ("_listeners", "has_happened")

    def __init__(self) -> None:
        self.has_happened = False
        self._listeners: list[Callable[[], None]] = []

    def happen(self) -> None:
        """Tell all who listen."""
        self.has_happened = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have it called when it happens, at once if it has already."""
        if self.has_happened:
            listener()
        else:
            self._listeners.append(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        """Have it called no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
