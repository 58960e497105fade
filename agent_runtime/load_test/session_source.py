"""Which session comes next."""

from __future__ import annotations

from dataclasses import dataclass

from agent_runtime.workload.session_script import SessionScript


@dataclass(slots=True)
class SessionSource:
    """Gives a workload's sessions in its order.

    Attributes:
        sessions: Of the workload, one or more.
        again: Whether it begins anew at its end.
        most: It gives so many at most; None without an end.
        num_given: So far.
    """

    sessions: tuple[SessionScript, ...]
    again: bool
    most: int | None
    num_given: int = 0

    def next(self) -> tuple[SessionScript, int] | None:
        """Return a session and how often the workload has begun again; None at the end."""
        most = self.most
        if not self.again:
            most = len(self.sessions) if most is None else min(most, len(self.sessions))
        if most is not None and self.num_given >= most:
            return None
        round_number, index = divmod(self.num_given, len(self.sessions))
        self.num_given += 1
        return self.sessions[index], round_number
