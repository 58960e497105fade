"""What scripted sessions will do: the future, for the bound that knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent_runtime.simulation.session_run import SessionRun
from agent_runtime.workload.session_script import ScriptedTurn
from scheduler.ids import SessionId


class ScriptOracle:
    """An ``Oracle`` that reads ahead in the scripts of live sessions."""

    def __init__(self, runs: Mapping[SessionId, SessionRun]) -> None:
        self._runs = runs
        self._left: dict[SessionId, list[tuple[int, int]]] = {}

    def gap_s(self, session_id: SessionId) -> float:
        """Return the next gap: infinite after the last turn, and 0 while children run."""
        run = self._runs[session_id]
        following = run.next_turn
        return float("inf") if following >= len(run.script.turns) else run.turn.gap_s

    def left(self, session_id: SessionId) -> tuple[int, int]:
        """Return the new prompt tokens and the output tokens of the turns to come.

        O(1): what is left after each turn is added up when a session is first asked for.
        """
        run = self._runs[session_id]
        left = self._left.get(session_id)
        if left is None:
            left = self._left[session_id] = _left_after(run.script.turns)
        return left[run.next_turn]


def _left_after(turns: Sequence[ScriptedTurn]) -> list[tuple[int, int]]:
    left = [(0, 0)]
    for turn, before in zip(reversed(turns), [*reversed(turns[:-1]), None], strict=True):
        known = 0 if before is None else before.isl_tokens
        new, out = left[-1]
        left.append((new + max(0, turn.isl_tokens - known), out + turn.osl_tokens))
    return left[::-1]
