"""What prefix caches could find at best."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from agent_runtime.workload.block_id_runs import BlockIdRun, clipped
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript


class SeenBlocks:
    """Which blocks were computed so far, as runs of ids.

    An id stands for its block and all before it, so of a prompt a leading part is seen. Costs
    O(runs log n): ids are kept as intervals, whose neighbours join.

    Invariant: ``_end_of`` maps the beginning of each interval to one past its end; they are
        disjoint, ``_starts`` holds their beginnings in order.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._end_of: dict[int, int] = {}

    def count_and_add(self, prompt: Iterable[BlockIdRun], context: Iterable[BlockIdRun]) -> int:
        """Return how many leading blocks of a prompt are seen; then its context is, too."""
        num_seen = 0
        for first, last in prompt:
            end = self._seen_until(first)
            num_seen += max(0, min(end, last + 1) - first)
            if end <= last:
                break
        for first, last in context:
            self._add(first, last + 1)
        return num_seen

    def _seen_until(self, first: int) -> int:
        """Return one past the last id from ``first`` on that is seen, ``first`` if it isn't."""
        index = bisect_right(self._starts, first) - 1
        return max(first, self._end_of[self._starts[index]]) if index >= 0 else first

    def _add(self, first: int, end: int) -> None:
        low = bisect_right(self._starts, first) - 1
        if low < 0 or self._end_of[self._starts[low]] < first:
            low += 1
        high = bisect_right(self._starts, end)
        if low < high:
            first = min(first, self._starts[low])
            end = max(end, self._end_of[self._starts[high - 1]])
        for start in self._starts[low:high]:
            del self._end_of[start]
        self._starts[low:high] = [first]
        self._end_of[first] = end


def infinite_cache_hit_ratio(sessions: Iterable[SessionScript], block_size_tokens: int) -> float:
    """Return the share of prompt tokens that a cache without end would have, token weighted.

    Sessions are taken one after the other; the last token of a prompt is always computed.
    """
    seen = SeenBlocks()
    num_hit_blocks = num_tokens = 0
    for turn in turns_of(sessions):
        most = (turn.isl_tokens - 1) // block_size_tokens
        prompt = clipped(turn.block_id_runs, 0, most)
        num_hit_blocks += seen.count_and_add(prompt, turn.block_id_runs)
        num_tokens += turn.isl_tokens
    return num_hit_blocks * block_size_tokens / num_tokens if num_tokens else 0.0


def turns_of(sessions: Iterable[SessionScript]) -> Iterator[ScriptedTurn]:
    """Yield every turn, each followed by those of the sub-agents that it starts."""
    for session in sessions:
        for turn in session.turns:
            yield turn
            yield from turns_of(turn.children)
