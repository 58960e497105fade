"""How many tokens a prompt has for a real engine, whose tokeniser the gateway has not.

The gateway counts with one of its own. What an engine counted of a session's last turn, and what
the gateway did, says how far off that is; only what is new since is an estimate.
"""

from __future__ import annotations

from scheduler.ids import SessionId

LEAST_SCALE, MOST_SCALE = 0.1, 10.0
WEIGHT = 0.1
"""Of one turn in the mean of all, which new sessions start from."""


class TokenCounts:
    """What was counted of each session's last turn: by the engine, and by the gateway."""

    def __init__(self) -> None:
        self._last: dict[SessionId, tuple[int, int]] = {}
        self._mean_scale = 1.0

    def scale(self, session_id: SessionId) -> float:
        """Return the engine's tokens per token of the gateway's."""
        last = self._last.get(session_id)
        return self._mean_scale if last is None else _scale(*last)

    def estimate(self, session_id: SessionId, num_counted: int) -> int:
        """Return how many tokens of the engine's a prompt has.

        Args:
            session_id: Whose.
            num_counted: By the gateway.
        """
        last = self._last.get(session_id)
        if last is None:
            return max(1, round(num_counted * self._mean_scale))
        exact, counted = last
        if num_counted < counted:  # a history that was replaced
            return max(1, round(num_counted * _scale(exact, counted)))
        return exact + round((num_counted - counted) * _scale(exact, counted))

    def learn(self, session_id: SessionId, num_exact: int, num_counted: int) -> None:
        """Take in what the engine counted of a prompt."""
        if num_exact < 1 or num_counted < 1:
            return
        self._last[session_id] = num_exact, num_counted
        self._mean_scale += WEIGHT * (_scale(num_exact, num_counted) - self._mean_scale)

    def forget(self, session_id: SessionId) -> None:
        """Forget a session."""
        self._last.pop(session_id, None)


def _scale(num_exact: int, num_counted: int) -> float:
    return min(max(num_exact / num_counted, LEAST_SCALE), MOST_SCALE)
