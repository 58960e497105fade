"""Which KV blocks several sessions have in common: system prompts, tools, templates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from agent_runtime.workload.block_id_runs import BlockIdRun
from agent_runtime.workload.prefix_hits import turns_of
from agent_runtime.workload.session_script import SessionScript


class SharedBlocks:
    """The ids of blocks that two sessions or more have, sub-agents counted with their session.

    Args:
        sessions: All of a workload.

    Invariant: ``_ends[i]`` is one past the last id of the interval that begins at ``_starts[i]``;
        intervals are disjoint and rise.
    """

    def __init__(self, sessions: Iterable[SessionScript]) -> None:
        changes: dict[int, int] = {}
        for session in sessions:
            for first, end in _joined(session):
                changes[first] = changes.get(first, 0) + 1
                changes[end] = changes.get(end, 0) - 1
        self._starts: list[int] = []
        self._ends: list[int] = []
        num_sessions = 0
        for at in sorted(changes):
            was_shared = num_sessions > 1
            num_sessions += changes[at]
            if num_sessions > 1 and not was_shared:
                self._starts.append(at)
            elif was_shared and num_sessions <= 1:
                self._ends.append(at)

    def split(self, run: BlockIdRun) -> Iterator[tuple[int, int, bool]]:
        """Cut a run where sharing begins or ends: first and last id, and whether it is shared."""
        at, last = run
        while at <= last:
            index = bisect_right(self._starts, at) - 1
            if index >= 0 and at < self._ends[index]:
                end, is_shared = self._ends[index], True
            else:
                is_last = index + 1 == len(self._starts)
                end, is_shared = (last + 1 if is_last else self._starts[index + 1]), False
            yield at, min(end - 1, last), is_shared
            at = end


def _joined(session: SessionScript) -> Sequence[tuple[int, int]]:
    """Return a session's ids as disjoint intervals ``[first, end)``."""
    runs = sorted({run for turn in turns_of([session]) for run in turn.block_id_runs})
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last + 1))
        else:
            joined.append((first, last + 1))
    return joined
