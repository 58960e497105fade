"""A run of decode steps with a fixed batch, advanced in closed form.

While nobody joins or leaves, every sequence's context grows by one token a step, so step ``i``
takes ``fixed_s + per_kv_token_s * (kv_tokens + i * num_sequences)`` and a run of ``k`` steps is a
quadratic in ``k``. A run costs O(sequences) however long it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from hw_model.engine.request import EngineRequest


class DecodeRun:
    """Up to ``num_steps`` decode steps of the same ``num_sequences`` from ``start_s`` on.

    Args:
        start_s: When the first step begins.
        num_steps: Steps, >= 1; ``truncate`` shortens a run while it is under way.
        num_sequences: Sequences in the batch.
        kv_tokens: Summed context of the first step.
        line: ``(fixed_s, per_kv_token_s)`` of ``StepTime.decode_line(num_sequences)``.
    """

    __slots__ = ("_fixed_s", "_kv_tokens", "_num_sequences", "_per_kv_s", "num_steps", "start_s")

    def __init__(
        self,
        start_s: float,
        num_steps: int,
        num_sequences: int,
        kv_tokens: int,
        line: tuple[float, float],
    ) -> None:
        self.start_s = start_s
        self.num_steps = num_steps
        self._num_sequences = num_sequences
        self._kv_tokens = kv_tokens
        self._fixed_s, self._per_kv_s = line

    @property
    def end_s(self) -> float:
        """When the last step ends."""
        return self.start_s + self._elapsed_s(self.num_steps)

    def truncate(self, now_s: float) -> None:
        """Let the run end with the step that is under way at ``now_s``."""
        if now_s < self.end_s:
            self.num_steps = self._steps_begun(now_s - self.start_s)

    def _elapsed_s(self, num_steps: int) -> float:
        """Seconds that the first ``num_steps`` steps take."""
        grown = self._num_sequences * (num_steps * (num_steps - 1) // 2)
        kv_tokens_read = num_steps * self._kv_tokens + grown
        return num_steps * self._fixed_s + kv_tokens_read * self._per_kv_s

    def _steps_begun(self, elapsed_s: float) -> int:
        """Return the smallest number of steps, >= 1, that last at least ``elapsed_s``."""
        quadratic = self._per_kv_s * self._num_sequences / 2
        linear = self._fixed_s + self._per_kv_s * (self._kv_tokens - self._num_sequences / 2)
        # The stable form of the quadratic formula: quadratic is tiny beside linear.
        root = math.sqrt(linear * linear + 4 * quadratic * elapsed_s)
        steps = min(max(math.ceil(2 * elapsed_s / (linear + root)), 1), self.num_steps)
        # The formula may be off by one in the last place; the sum itself decides.
        while steps > 1 and self._elapsed_s(steps - 1) >= elapsed_s:
            steps -= 1
        while steps < self.num_steps and self._elapsed_s(steps) < elapsed_s:
            steps += 1
        return steps


class DecodingBatch:
    """What limits a run of decode steps, gathered in one pass over the batch.

    Attributes:
        kv_tokens: Summed context of the first step.
    """

    __slots__ = ("_block_size_tokens", "_most_steps", "_num_by_slots", "kv_tokens")

    def __init__(
        self,
        block_size_tokens: int,
        most_steps: int,
        num_by_slots: dict[int, int],
        kv_tokens: int,
    ) -> None:
        self._block_size_tokens = block_size_tokens
        self._most_steps = most_steps
        self._num_by_slots = num_by_slots  # tokens a request still has room for -> requests
        self.kv_tokens = kv_tokens

    @classmethod
    def of(
        cls, running: Sequence[EngineRequest], num_ahead: int, block_size_tokens: int
    ) -> Self | None:
        """Return the batch if its next step computes one token of each request; else None.

        Args:
            running: At least one request.
            num_ahead: Steps of the batch that are scheduled already.
            block_size_tokens: Of its KV.
        """
        most_steps = running[0].num_output_tokens
        num_by_slots: dict[int, int] = {}
        kv_tokens = 0
        for request in running:
            generated, computed = request.num_generated_tokens, request.num_computed_tokens
            if request.num_prompt_tokens + generated + num_ahead - computed != 1:
                return None
            if generated == 0 or request.num_output_placeholders != num_ahead:
                return None
            left = request.num_output_tokens - generated
            if left < most_steps:  # noqa: PLR1730 - a call less for each request of each run
                most_steps = left
            slots = request.table.num_blocks * block_size_tokens - computed
            num_by_slots[slots] = num_by_slots.get(slots, 0) + 1
            kv_tokens += computed
        ahead_tokens = num_ahead * len(running)
        return cls(
            block_size_tokens, most_steps - num_ahead, num_by_slots, kv_tokens - ahead_tokens
        )

    def steps_with_room(self, num_free_blocks: int) -> int:
        """Return how many steps there are until a request ends or the blocks run out."""
        most = self._most_steps
        if self._num_new_blocks(most) <= num_free_blocks:
            return most
        enough, too_many = 0, most
        while too_many - enough > 1:
            middle = (enough + too_many) // 2
            if self._num_new_blocks(middle) <= num_free_blocks:
                enough = middle
            else:
                too_many = middle
        return enough

    def _num_new_blocks(self, num_steps: int) -> int:
        block_size = self._block_size_tokens
        return sum(
            num * -(-(num_steps - slots) // block_size)
            for slots, num in self._num_by_slots.items()
            if num_steps > slots
        )
