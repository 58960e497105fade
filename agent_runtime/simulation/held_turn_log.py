"""What holding turns back did: pauses of sessions, waits, and the KV that was in use meanwhile."""

from __future__ import annotations

from agent_runtime.simulation.session_run import SessionRun

PAUSE_S = 1.0
"""A session whose next turn is held for longer is paused."""


class HeldTurnLog:
    """Counts over one run.

    Attributes:
        num_pauses: Turns held for longer than ``PAUSE_S`` after their session's first.
        longest_s: The longest any turn was held.
        active_token_s: Context of every turn times the seconds from its dispatch to its end.
    """

    __slots__ = ("active_token_s", "longest_s", "num_pauses")

    def __init__(self) -> None:
        self.num_pauses = 0
        self.longest_s = 0.0
        self.active_token_s = 0.0

    def dispatched(self, run: SessionRun, now_s: float) -> None:
        """A turn goes to a replica; ``now_s`` is on the clock it was sent by."""
        run.dispatched_s = now_s
        held_s = now_s - run.sent_s
        self.longest_s = max(self.longest_s, held_s)
        if held_s > PAUSE_S and run.next_turn > 0:
            self.num_pauses += 1

    def ended(self, run: SessionRun, now_s: float) -> None:
        """Its last token is there."""
        tokens = run.turn.isl_tokens + run.turn.osl_tokens
        self.active_token_s += tokens * (now_s - run.dispatched_s)
