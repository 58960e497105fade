"""What holding turns back did: pauses of sessions, and waits."""

from __future__ import annotations

from agent_runtime.simulation.session_run import SessionRun

PAUSE_S = 1.0
"""A session whose next turn is held for longer is paused."""


class HeldTurnLog:
    """Counts over one run.

    Attributes:
        num_pauses: Turns held for longer than ``PAUSE_S`` after their session's first.
        longest_s: The longest any turn was held.
    """

    __slots__ = ("longest_s", "num_pauses")

    def __init__(self) -> None:
        self.num_pauses = 0
        self.longest_s = 0.0

    def dispatched(self, run: SessionRun, now_s: float) -> None:
        """A turn goes to a replica; ``now_s`` is on the clock it was sent by."""
        held_s = now_s - run.sent_s
        self.longest_s = max(self.longest_s, held_s)
        if held_s > PAUSE_S and run.next_turn > 0:
            self.num_pauses += 1
