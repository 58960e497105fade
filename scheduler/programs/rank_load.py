"""What the active programs of a replica amount to: reported each second, counted in between.

Source: vllm-router 0.1.17, ``program_scheduling/scheduler.rs``: a report of KV usage is scaled from
the requests that run to the programs that reason, since some of them wait in the engine; programs
that act are added by their size, and what happens after the report by the difference it makes.
"""

from __future__ import annotations

FRESH_S = 3.0
"""A report is worth nothing after that: three of them have failed to come."""


def reported_tokens(
    num_kv_tokens: float, num_running: int, num_reasoning: int, reasoning_tokens: float
) -> float:
    """Return what the reasoning programs amount to, by a report.

    Args:
        num_kv_tokens: That requests hold.
        num_running: Requests that run.
        num_reasoning: Programs with a turn on the replica.
        reasoning_tokens: Of those, by their size.
    """
    if num_running > 0:
        return num_kv_tokens * max(num_reasoning, num_running) / num_running
    return reasoning_tokens if num_reasoning > 0 else num_kv_tokens


class RankLoad:
    """One replica's.

    Attributes:
        num_waiting: Requests that waited in the engine at the last report.
    """

    __slots__ = ("_reported_s", "_tokens", "num_waiting")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._reported_s = -float("inf")
        self.num_waiting = 0

    def report(self, tokens: float, num_waiting: int, now_s: float) -> None:
        """Take in a report."""
        self._tokens = tokens
        self.num_waiting = num_waiting
        self._reported_s = now_s

    def add(self, tokens: float) -> None:
        """Count what has happened since."""
        self._tokens += tokens

    def is_fresh(self, now_s: float) -> bool:
        """Return whether there was a report lately."""
        return now_s - self._reported_s <= FRESH_S

    @property
    def tokens(self) -> float:
        """Never less than none."""
        return max(0.0, self._tokens)
