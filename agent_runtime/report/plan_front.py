"""Which layouts of a plan no other of the same precisions beats, chips against one quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hw_model.planner import Candidate
from hw_model.specs import Precision

Pair = tuple[Precision, Precision]


@dataclass(frozen=True, slots=True)
class Placed:
    """A layout in a chart.

    Attributes:
        value: What is drawn against its chips.
        on_front: Whether no layout on as many chips or fewer is better.
    """

    candidate: Candidate
    value: float
    on_front: bool


def fronts(
    candidates: Iterable[Candidate], value: Callable[[Candidate], float], *, lowest: bool
) -> dict[Pair, list[Placed]]:
    """Return the layouts by precisions of weights and KV, fewest chips first.

    Args:
        candidates: Any number.
        value: What to compare.
        lowest: Whether less is better.
    """
    by_pair: dict[Pair, list[Candidate]] = {}
    for candidate in candidates:
        by_pair.setdefault(candidate.shape.precisions, []).append(candidate)
    sign = 1.0 if lowest else -1.0
    placed: dict[Pair, list[Placed]] = {}
    for pair, members in by_pair.items():
        best = float("inf")
        placed[pair] = []
        for candidate in sorted(members, key=lambda c: (c.num_chips, sign * value(c))):
            worth = sign * value(candidate)
            placed[pair].append(Placed(candidate, value(candidate), worth < best))
            best = min(best, worth)
    return placed
