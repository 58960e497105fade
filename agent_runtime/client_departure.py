"""When a client goes away, told by the server as it happens.

ASGI tells it only to whoever waits in ``receive``, for which every request under way takes a task.
A server that knows better puts a ``Departure`` among its scope's extensions.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

EXTENSION = "panjiu.departure"


class Departure:
    """Of the client at the other end of one connection.

    Attributes:
        has_left: Whether it has gone.
    """

    __slots__ = ("_listeners", "has_left")

    def __init__(self) -> None:
        self.has_left = False
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Have it called when the client goes, at once if it has gone already."""
        if self.has_left:
            listener()
        else:
            self._listeners.append(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        """Have it called no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def client_left(self) -> None:
        """Tell all who listen; for the server."""
        self.has_left = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()


def departure_of(scope: MutableMapping[str, Any]) -> Departure | None:
    """Return that of a request's client; None if its server does not tell."""
    found = (scope.get("extensions") or {}).get(EXTENSION)
    return found if isinstance(found, Departure) else None
