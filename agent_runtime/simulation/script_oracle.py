"""What scripted sessions will do: the future, for the bound that knows it."""

from __future__ import annotations

from collections.abc import Mapping

from agent_runtime.simulation.session_run import SessionRun
from scheduler.ids import SessionId


class ScriptOracle:
    """An ``Oracle`` that reads ahead in the scripts of live sessions."""

    def __init__(self, runs: Mapping[SessionId, SessionRun]) -> None:
        self._runs = runs

    def gap_s(self, session_id: SessionId) -> float:
        """Return the next gap: infinite after the last turn, and 0 while children run."""
        run = self._runs[session_id]
        following = run.next_turn
        return float("inf") if following >= len(run.script.turns) else run.turn.gap_s
