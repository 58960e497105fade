"""What an event log tells of single turns: what was decided, why, and how it came out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.errors import TraceError


@dataclass(slots=True)
class TurnStory:
    """A turn as the event log tells it; times are emulated seconds.

    Attributes:
        session: Whose turn it is.
        arrived_s, dispatched_s, prefilled_s, ended_s: When; None where it did not happen.
        replica: Where it ran.
        cached_tokens: Of its prompt, found there.
        receipts: ``(when, receipt)`` of the decisions about it, in order.
    """

    turn: str
    session: str
    prompt_tokens: int
    arrived_s: float
    dispatched_s: float | None = None
    prefilled_s: float | None = None
    ended_s: float | None = None
    replica: int | None = None
    cached_tokens: int | None = None
    receipts: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    @property
    def held_s(self) -> float:
        """Seconds from its arrival to its dispatch."""
        return 0.0 if self.dispatched_s is None else self.dispatched_s - self.arrived_s

    @property
    def ttft_s(self) -> float | None:
        """Seconds from its arrival to its first token."""
        return None if self.prefilled_s is None else self.prefilled_s - self.arrived_s

    @property
    def choice(self) -> tuple[float, dict[str, Any]] | None:
        """When and by which receipt it was sent, if there is one."""
        sent = [entry for entry in self.receipts if entry[1]["chosen"] is not None]
        return sent[-1] if sent else None

    @property
    def predicted_s(self) -> float | None:
        """Seconds to its first token that the choice counted on."""
        if self.choice is None:
            return None
        option = next(
            o for o in self.choice[1]["options"] if o["replica"] == self.choice[1]["chosen"]
        )
        return float(option["ttft_s"])

    @property
    def realised_s(self) -> float | None:
        """Seconds to its first token that it took from the choice on."""
        if self.choice is None or self.prefilled_s is None:
            return None
        return self.prefilled_s - self.choice[0]


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


def read_stories(lines: Iterable[str], path: str) -> dict[str, TurnStory]:
    """Return the turns of an event log by their ids.

    Raises:
        TraceError: A line that is none of an event log; names it.
    """
    stories: dict[str, TurnStory] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            _take(entry, stories)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TraceError(
                "not a line of an event log, as --event-log writes it", path=path, line=number
            ) from error
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


def _take(entry: dict[str, Any], stories: dict[str, TurnStory]) -> None:
    now_s, event = float(entry["t"]), entry["event"]
    if event == "turn_arrived":
        stories[entry["turn"]] = TurnStory(
            entry["turn"], entry["session"], entry["prompt_tokens"], now_s
        )
    elif event == "prefill_ended" and entry["turn"] in stories:
        stories[entry["turn"]].prefilled_s = now_s
        stories[entry["turn"]].cached_tokens = entry["cached_tokens"]
    elif event == "turn_ended" and entry["turn"] in stories:
        stories[entry["turn"]].ended_s = now_s
    for receipt in entry.get("why", ()):
        stories[receipt["turn"]].receipts.append((now_s, receipt))
    for command in entry.get("do", ()):
        if command["do"] == "dispatch":
            stories[command["turn"]].dispatched_s = now_s
            stories[command["turn"]].replica = command["replica"]
