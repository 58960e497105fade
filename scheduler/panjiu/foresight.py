"""What is thought of the future: learned, or known, which is a bound and no policy."""

from __future__ import annotations

from typing import Protocol

from scheduler.events import GapHint
from scheduler.gap_model import GapModel
from scheduler.session import Session
from scheduler.setup import Oracle

SOON_S = 0.05
"""A known gap is never taken for shorter."""


class Foresight(Protocol):
    """Tells when sessions come back."""

    def gap_ended(self, session: Session, gap_s: float) -> None:
        """Learn of a tool gap that is over."""
        ...

    def gap_began(self, session: Session, now_s: float) -> None:
        """Take note of one that begins."""
        ...

    def gap_ended_unseen(self, session: Session) -> None:
        """A session will not come back."""
        ...

    def return_rate(self, session: Session, now_s: float) -> float:
        """Return how soon an idle session may come back: an index, per second."""
        ...

    def left(self, session: Session) -> tuple[int, int]:
        """Return the new prompt tokens and the output tokens that a session is thought to need."""
        ...


class LearnedForesight:
    """From the gaps there were. How many turns are left is not asked, as nothing tells.

    Over 710 recorded sessions, turns done and turns left correlate by -0.0005: sessions end as if
    by chance at every turn.
    """

    def __init__(self) -> None:
        self.gaps = GapModel()

    def gap_ended(self, session: Session, gap_s: float) -> None:
        """Learn of it."""
        self.gaps.observe(session.gap, gap_s)

    def gap_began(self, session: Session, now_s: float) -> None:
        """Nothing: it is looked at when somebody asks."""

    def gap_ended_unseen(self, session: Session) -> None:
        """Nothing: it says nothing of the gaps after which sessions come back."""

    def return_rate(self, session: Session, now_s: float) -> float:
        """Return the gap model's index."""
        gap: GapHint = session.gap
        return self.gaps.return_rate(gap, now_s - session.last_ended_s)

    def left(self, session: Session) -> tuple[int, int]:  # noqa: ARG002 - protocol
        """Nothing: all are alike, see above."""
        return 0, 0


class KnownForesight:
    """Knows every gap: what Belady's rule needs."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._back_s: dict[Session, float] = {}

    def gap_ended(self, session: Session, gap_s: float) -> None:  # noqa: ARG002 - protocol
        """Forget it."""
        self._back_s.pop(session, None)

    def gap_began(self, session: Session, now_s: float) -> None:
        """Look up when it ends."""
        self._back_s[session] = now_s + self._oracle.gap_s(session.session_id)

    def gap_ended_unseen(self, session: Session) -> None:
        """Forget it."""
        self._back_s.pop(session, None)

    def return_rate(self, session: Session, now_s: float) -> float:
        """Return one over what is left of the gap."""
        return 1.0 / max(SOON_S, self._back_s.get(session, now_s) - now_s)

    def left(self, session: Session) -> tuple[int, int]:
        """Look it up."""
        return self._oracle.left(session.session_id)
