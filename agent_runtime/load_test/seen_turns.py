"""A run's turns as arrays: which of them count, and what came when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.load_test.summary import Window
from agent_runtime.load_test.turn_record import TurnRecord

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeenTurns:
    """Turns of a run.

    Attributes:
        every: All that were sent.
        window: What counts.
        end_s: Of the run; turns that are not over are taken to be under way until then.
    """

    every: Sequence[TurnRecord]
    window: Window
    end_s: float

    @property
    def due(self) -> list[TurnRecord]:
        """Those that were due in the window."""
        return [turn for turn in self.every if self.window.holds(turn.due_s)]

    def token_times(self) -> tuple[FloatArray, FloatArray]:
        """Return when chunks with tokens came, and how many tokens each had.

        Where a server tells no counts a chunk has an equal share of its reply's tokens.
        """
        times, counts = [], []
        for turn in self.every:
            if np.isnan(turn.first_s):
                continue
            times.append(turn.first_s + np.concatenate(([0.0], np.cumsum(turn.gaps_s))))
            chunks = np.array([turn.first_tokens, *turn.gap_tokens], dtype=np.float64)
            counts.append(chunks * (turn.output_tokens / chunks.sum()))
        return _joined(times), _joined(counts)

    def in_flight(self) -> tuple[FloatArray, FloatArray]:
        """Return the times at which streams began or ended, and how many there were from then."""
        sent = np.array([turn.sent_s for turn in self.every if not np.isnan(turn.sent_s)])
        ended = np.array(
            [
                turn.ended_s if turn.is_finished else self.end_s
                for turn in self.every
                if not np.isnan(turn.sent_s)
            ]
        )
        at_s = np.concatenate((sent, ended))
        change = np.concatenate((np.ones_like(sent), -np.ones_like(ended)))
        order = np.lexsort((change, at_s))  # at one time, ends before beginnings
        return at_s[order], np.cumsum(change[order])

    def mean_in_flight(self, start_s: float, end_s: float) -> float:
        """Return how many streams there were on average."""
        busy_s = 0.0
        for turn in self.every:
            if not np.isnan(turn.sent_s):
                ended_s = turn.ended_s if turn.is_finished else self.end_s
                busy_s += max(0.0, min(ended_s, end_s) - max(turn.sent_s, start_s))
        return busy_s / (end_s - start_s)


def gaps_between_chunks(turns: Iterable[TurnRecord]) -> FloatArray:
    """Return all times from a chunk with tokens to the next of its reply."""
    return _joined([np.asarray(turn.gaps_s) for turn in turns])


def gaps_between_tokens(turns: Iterable[TurnRecord]) -> FloatArray:
    """Return a time a token: those of a chunk share the time since the chunk before equally.

    Only of turns whose chunks the server has counted.
    """
    gaps = []
    for turn in turns:
        if turn.counts_known:
            counts = np.asarray(turn.gap_tokens, dtype=np.int64)
            gaps.append(np.repeat(np.asarray(turn.gaps_s) / counts, counts))
    return _joined(gaps)


def _joined(arrays: list[FloatArray]) -> FloatArray:
    return np.concatenate(arrays) if arrays else np.zeros(0)
