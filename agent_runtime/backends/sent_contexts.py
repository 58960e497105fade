"""What should lie on an engine that does not tell: the contexts of the turns that ran there."""

from __future__ import annotations

from collections import OrderedDict

from scheduler.ids import SessionId


class SentContexts:
    """Contexts on one engine, the oldest forgotten first.

    Invariant: ``_total`` is the sum of the contexts.
    """

    def __init__(self) -> None:
        self._contexts: OrderedDict[SessionId, int] = OrderedDict()
        self._total = 0

    @property
    def total_tokens(self) -> int:
        """Of all contexts."""
        return self._total

    def num_tokens(self, session_id: SessionId) -> int:
        """Return what should still be there of a session."""
        return self._contexts.get(session_id, 0)

    def note(self, session_id: SessionId, num_tokens: int, room_tokens: int | None) -> None:
        """Note a session's context; older ones leave if there is no room for all."""
        self.forget(session_id)
        self._contexts[session_id] = num_tokens
        self._total += num_tokens
        while room_tokens is not None and self._total > room_tokens and len(self._contexts) > 1:
            _, lost = self._contexts.popitem(last=False)
            self._total -= lost

    def forget(self, session_id: SessionId) -> None:
        """Forget a session."""
        self._total -= self._contexts.pop(session_id, 0)
