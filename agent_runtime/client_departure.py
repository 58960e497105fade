"""When a client goes away, told by the server as it happens.

ASGI tells it only to whoever waits in ``receive``, for which every request under way takes a task.
A server that knows better puts a ``Departure`` among its scope's extensions.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from agent_runtime.occurrence import Occurrence

EXTENSION = "panjiu.departure"


class Departure(Occurrence):
    """Of the client at the other end of one connection; the server lets it happen."""

    __slots__ = ()


def departure_of(scope: MutableMapping[str, Any]) -> Departure | None:
    """Return that of a request's client; None if its server does not tell."""
    found = (scope.get("extensions") or {}).get(EXTENSION)
    return found if isinstance(found, Departure) else None
