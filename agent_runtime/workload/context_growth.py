"""How long contexts are, turn by turn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.workload.session_script import SessionScript

MIN_SESSIONS = 10
"""Percentiles of fewer say nothing."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ContextGrowth:
    """Percentiles of the prompt's length at each turn, over the sessions that get so far.

    Attributes:
        turn: [n], from 1.
        p10_tokens, p50_tokens, p90_tokens: [n] each.
        num_sessions: [n], how many get so far.
    """

    turn: FloatArray
    p10_tokens: FloatArray
    p50_tokens: FloatArray
    p90_tokens: FloatArray
    num_sessions: FloatArray


def context_growth(sessions: Iterable[SessionScript]) -> ContextGrowth:
    """Return the growth of top-level sessions, as far as at least ten of them go, or all do."""
    lengths = [
        np.array([turn.isl_tokens for turn in script.turns], dtype=np.float64)
        for script in sessions
    ]
    least = min(MIN_SESSIONS, len(lengths))
    rows = []
    number = 0
    while len(lengths := [isl for isl in lengths if isl.size > number]) >= max(1, least):
        at_turn = np.array([isl[number] for isl in lengths])
        number += 1
        rows.append((number, *np.percentile(at_turn, (10, 50, 90)), len(lengths)))
    return ContextGrowth(*np.array(rows, dtype=np.float64).reshape(-1, 5).T)
