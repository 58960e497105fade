"""How idle an agent is: the share of its time that it acts and does not reason.

Source: MORI, arXiv 2606.00866: ``iota = T_acting / (T_reasoning + T_acting)`` over the last five
cycles, the one under way included and what the scheduler made it wait excluded.
"""

from __future__ import annotations

from collections import deque

CYCLES = 5


class Idleness:
    """One program's last cycles, each of reasoning and then acting.

    Invariant: at most one of the two times is set; neither is while its turn is held.
    """

    __slots__ = ("_acting_since_s", "_cycles", "_reasoning_since_s")

    def __init__(self) -> None:
        self._cycles: deque[list[float]] = deque(maxlen=CYCLES)
        self._acting_since_s: float | None = None
        self._reasoning_since_s: float | None = None

    def arrived(self, now_s: float) -> None:
        """It acts no longer; what it waits from now on does not count."""
        if self._acting_since_s is not None:
            self._cycles[-1][1] = now_s - self._acting_since_s
            self._acting_since_s = None

    def dispatched(self, now_s: float) -> None:
        """It reasons."""
        if self._reasoning_since_s is None:
            self._reasoning_since_s = now_s

    def ended(self, now_s: float) -> None:
        """It acts, if it reasoned: its last turn that ran has ended."""
        if self._reasoning_since_s is not None:
            self._cycles.append([now_s - self._reasoning_since_s, 0.0])
            self._reasoning_since_s = None
            self._acting_since_s = now_s

    def ratio(self, now_s: float) -> float:
        """Return iota; 0 for a program that has done nothing yet."""
        cycles = [tuple(cycle) for cycle in self._cycles]
        if self._reasoning_since_s is not None:
            cycles = [*cycles[-CYCLES + 1 :], (now_s - self._reasoning_since_s, 0.0)]
        elif self._acting_since_s is not None:
            cycles[-1] = (cycles[-1][0], now_s - self._acting_since_s)
        acting_s = sum(acting for _, acting in cycles)
        total_s = acting_s + sum(reasoning for reasoning, _ in cycles)
        return acting_s / total_s if total_s > 0 else 0.0
