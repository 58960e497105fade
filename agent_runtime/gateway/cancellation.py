"""How somebody beside its client ends an answer, without a task that waits for it."""

from __future__ import annotations

from collections.abc import Callable


class Cancellation:
    """Of one answer.

    Attributes:
        is_set: Whether it is to end.
    """

    __slots__ = ("_listeners", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._listeners: list[Callable[[], None]] = []

    def set(self) -> None:
        """Let it end."""
        self.is_set = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have it called when the answer is to end, at once if it is already."""
        if self.is_set:
            listener()
        else:
            self._listeners.append(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        """Have it called no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
