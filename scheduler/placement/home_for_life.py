"""A session stays with its KV for life; at birth it goes where KV is least.

A session's prefix is worth seconds of prefill and a few turns' queueing is worth less, so a turn
goes to its session's home. Balance is decided once, at birth, by the context of the sessions that
live on each replica and not by the turns that happen to be active: most sessions are in a tool gap
at any moment, and they come back.
"""

from __future__ import annotations

from scheduler.policy import Placement
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class HomeForLife:
    """Sticky to the KV, least resident context at birth."""

    def place(self, turn: Turn, session: Session, rack: Rack) -> Placement:  # noqa: ARG002 - protocol
        """Return the session's home, or for a new one the replica with the least context."""
        return Placement(rack.session_tokens.least() if session.home is None else session.home)
