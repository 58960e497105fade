"""How long a program's calls were served and how long they waited, told from outside the engine."""

from __future__ import annotations

from scheduler.cost import CostModel
from scheduler.session import Turn


class CallTimes:
    """Service and wait of one program's calls.

    An engine does not say when it began with a prompt, so what the prompt takes alone counts as
    service, and what its first token took beyond that as waiting.

    Attributes:
        service_s: Of its calls with a first token: prefill, then until the end.
        wait_s: Of the same calls: before.
    """

    __slots__ = ("_first_token_s", "service_s", "wait_s")

    def __init__(self) -> None:
        self.service_s = 0.0
        self.wait_s = 0.0
        self._first_token_s: dict[Turn, float] = {}

    def prefilled(self, turn: Turn, num_cached_tokens: int, cost: CostModel, now_s: float) -> None:
        """Take note of a call's first token; once is enough."""
        if turn in self._first_token_s:
            return
        self._first_token_s[turn] = now_s
        took_s = now_s - turn.arrived_s
        prefill_s = min(took_s, cost.prefill_s(num_cached_tokens, turn.num_prompt_tokens))
        self.service_s += prefill_s
        self.wait_s += took_s - prefill_s

    def ended(self, turn: Turn, now_s: float) -> None:
        """Take note of a call's end."""
        first_token_s = self._first_token_s.pop(turn, None)
        if first_token_s is not None:
            self.service_s += now_s - first_token_s
