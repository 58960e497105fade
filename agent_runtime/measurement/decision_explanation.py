"""What an event log tells of single turns: what was decided, why, and how it came out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent_runtime.measurement.decision_reading import read_decisions
from agent_runtime.measurement.turn_stories import TurnStories, TurnStory
from agent_runtime.workload.trace_lines import numbered_lines
from scheduler.events import TurnArrived


@dataclass(frozen=True, slots=True)
class Regret:
    """How predictions came out over a log.

    Attributes:
        num_turns: With a receipt and a first token.
        predicted_s, realised_s: Sums.
        num_underestimated: Turns that took more than twice as long, and a second more.
        worst: Turns by seconds beyond the prediction, the worst first.
    """

    num_turns: int
    predicted_s: float
    realised_s: float
    num_underestimated: int
    worst: tuple[TurnStory, ...]


def read_stories(path: str) -> dict[str, TurnStory]:
    """Return the turns of an event log by their ids, in the order of their arrival.

    Raises:
        TraceError: It can't be read, or a line is none of an event log; names it.
    """
    stories: dict[str, TurnStory] = {}
    turns = TurnStories()
    for _, decision in read_decisions(numbered_lines(path), path):
        over = turns.take(decision)
        if isinstance(decision.event, TurnArrived):
            turn_id = decision.event.turn_id
            stories[turn_id] = turns.under_way[turn_id] if over is None else over
    return stories


def regret(stories: Iterable[TurnStory], num_worst: int) -> Regret:
    """Return how predictions came out."""
    known = [s for s in stories if s.predicted_s is not None and s.realised_s is not None]
    pairs = [(s.predicted_s or 0.0, s.realised_s or 0.0, s) for s in known]
    worst = sorted(pairs, key=lambda pair: pair[0] - pair[1])[:num_worst]
    return Regret(
        num_turns=len(pairs),
        predicted_s=sum(predicted for predicted, _, _ in pairs),
        realised_s=sum(realised for _, realised, _ in pairs),
        num_underestimated=sum(
            realised > 2 * predicted and realised > predicted + 1
            for predicted, realised, _ in pairs
        ),
        worst=tuple(story for _, _, story in worst),
    )
