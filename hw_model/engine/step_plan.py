"""What one step computes, and the sums that its duration depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw_model.engine.request import EngineRequest
from hw_model.step_time import StepShape

ScheduledRequest = tuple[EngineRequest, int, bool]
"""A request, how many new tokens it computes, and whether it samples one from the last of them."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The requests of one step, in the order in which their output is taken in."""

    scheduled: tuple[ScheduledRequest, ...]
    shape: StepShape

    @property
    def is_decode(self) -> bool:
        """Whether every request computes one token."""
        return self.shape.num_tokens == self.shape.num_sequences

    def after_decode_steps(self, num_steps: int) -> StepPlan:
        """Return the same decode step with contexts grown by so many steps."""
        grown = self.shape.kv_read_tokens + num_steps * self.shape.num_sequences
        return replace(self, shape=replace(self.shape, kv_read_tokens=grown))


class PlanBuilder:
    """Collects a step's requests within its token budget.

    Invariant: ``budget`` plus the new tokens of all in ``_scheduled`` is the budget at the start.
    """

    __slots__ = (
        "_is_async",
        "_kv_read",
        "_new_requests",
        "_pairs",
        "_scheduled",
        "_tokens",
        "budget",
    )

    def __init__(self, budget: int, *, is_async: bool) -> None:
        self.budget = budget
        self._is_async = is_async
        self._scheduled: list[ScheduledRequest] = []
        self._tokens = self._kv_read = self._new_requests = 0
        self._pairs = 0.0

    def add(self, request: EngineRequest, num_new: int, *, is_new: bool = False) -> None:
        """Count so many tokens of a request as computed; ``is_new`` if it never ran before.

        From here on the request is as the next step finds it.
        """
        before = request.num_computed_tokens
        request.num_computed_tokens = after = before + num_new
        known = request.num_prompt_tokens + request.num_generated_tokens
        samples = after == known + request.num_output_placeholders
        if self._is_async:
            request.num_in_flight_tokens += num_new
            request.num_output_placeholders += samples
        self._scheduled.append((request, num_new, samples))
        self.budget -= num_new
        self._tokens += num_new
        self._kv_read += before
        self._new_requests += is_new
        if num_new > 1:
            self._pairs += num_new * (before + num_new / 2)

    def drop(self, request: EngineRequest) -> None:
        """Undo ``add`` for a request that is preempted, if it had been added. O(requests)."""
        added = next((item for item in self._scheduled if item[0] is request), None)
        if added is None:
            return
        self._scheduled.remove(added)
        _, num_new, samples = added
        request.num_computed_tokens = before = request.num_computed_tokens - num_new
        if self._is_async:
            request.num_in_flight_tokens -= num_new
            request.num_output_placeholders -= samples
        self.budget += num_new
        self._tokens -= num_new
        self._kv_read -= before
        if num_new > 1:
            self._pairs -= num_new * (before + num_new / 2)

    def build(self) -> StepPlan | None:
        """Return the plan; None if nothing was added."""
        if not self._scheduled:
            return None
        shape = StepShape(
            num_tokens=self._tokens,
            kv_read_tokens=self._kv_read,
            prefill_pairs=self._pairs,
            num_sequences=len(self._scheduled),
            num_new_requests=self._new_requests,
        )
        return StepPlan(tuple(self._scheduled), shape)
