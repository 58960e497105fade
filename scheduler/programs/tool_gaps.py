"""How long sessions were away between two turns, by what they went to do."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from scheduler.events import GapHint
from scheduler.session import Turn


def gap_class(hint: GapHint) -> str:
    """Return the class of a gap: the tools that run, or else whom the session waits for."""
    return "+".join(hint.tools) or hint.cause.value


def ended_gap_s(turn: Turn, now_s: float) -> float | None:
    """Return how long the gap was that a turn ends by arriving; None if there was none."""
    session = turn.session
    if session.num_turns_ended == 0 or session.num_active_turns != 1:
        return None
    return now_s - session.last_ended_s


class GapWindow:
    """The latest gaps of one class.

    Attributes:
        ascending: The same, sorted.
    """

    __slots__ = ("_latest", "_size", "ascending")

    def __init__(self, size: int) -> None:
        self._size = size
        self._latest: deque[float] = deque()
        self.ascending: list[float] = []

    def __len__(self) -> int:
        return len(self.ascending)

    def add(self, gap_s: float) -> None:
        """Take in a gap, for the oldest if there are too many."""
        if len(self._latest) == self._size:
            oldest = self._latest.popleft()
            del self.ascending[bisect_left(self.ascending, oldest)]
        self._latest.append(gap_s)
        insort(self.ascending, gap_s)


class GapHistory:
    """The latest gaps of every class, and of all together.

    Args:
        size: How many are kept of a class.
    """

    __slots__ = ("_by_class", "_size", "all")

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_class: dict[str, GapWindow] = {}
        self.all = GapWindow(size)

    def add(self, name: str, gap_s: float) -> None:
        """Take in a gap of a class."""
        self._by_class.setdefault(name, GapWindow(self._size)).add(gap_s)
        self.all.add(gap_s)

    def ascending(self, name: str) -> Sequence[float]:
        """Return the gaps of a class, shortest first."""
        window = self._by_class.get(name)
        return () if window is None else window.ascending
