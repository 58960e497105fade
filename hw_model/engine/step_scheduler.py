"""What one step computes: vLLM V1's ``Scheduler.schedule()`` for full attention, FCFS.

Running requests first, in order; each gets the tokens it lacks, within the step's token budget. If
the pool is full the youngest running request is preempted: it loses its blocks and goes to the
front of the queue. Waiting requests are admitted only in a step without preemption, until the
budget, ``max_num_seqs`` or the pool is exhausted. Prompts are computed in chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId, RequestStatus
from hw_model.step_time import StepShape


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """vLLM's limits, by vLLM's names and defaults for an API server.

    Attributes:
        max_num_batched_tokens: New tokens in one step.
        max_num_seqs: Requests running at once.
    """

    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The requests of one step and how many new tokens each computes."""

    scheduled: tuple[tuple[EngineRequest, int], ...]
    shape: StepShape


class StepScheduler:
    """The queues of one engine.

    Invariant: a request is in ``waiting`` (WAITING or PREEMPTED, without blocks) or in ``running``
        (RUNNING), never in both; ``len(running) <= max_num_seqs``.
    """

    __slots__ = (
        "kv",
        "limits",
        "num_cached_tokens",
        "num_preemptions",
        "num_prompt_tokens",
        "num_recomputed_tokens",
        "running",
        "waiting",
    )

    def __init__(self, kv: KvManager, limits: EngineLimits) -> None:
        self.kv = kv
        self.limits = limits
        self.waiting: deque[EngineRequest] = deque()
        self.running: list[EngineRequest] = []
        self.num_prompt_tokens = 0  # of requests admitted so far, each counted once
        self.num_cached_tokens = 0  # how many of those were in the prefix cache
        self.num_preemptions = 0
        self.num_recomputed_tokens = 0  # computed, lost to a preemption, computed again

    def schedule(self) -> StepPlan | None:
        """Plan the next step and allocate its blocks; None when there is nothing to run."""
        builder = _PlanBuilder(self.limits.max_num_batched_tokens)
        preempted = self._schedule_running(builder)
        if not preempted:
            self._schedule_waiting(builder)
        return builder.build()

    def finish(self, request: EngineRequest) -> None:
        """Take a running request out and free its blocks."""
        self.running.remove(request)
        self.kv.release(request)
        request.status = RequestStatus.FINISHED

    def requests(self) -> Iterator[EngineRequest]:
        """Iterate over all requests, running first."""
        yield from self.running
        yield from self.waiting

    def can_admit(self) -> bool:
        """Return whether ``schedule`` could admit the head of the queue beside a decoding batch."""
        room = self.limits.max_num_batched_tokens - len(self.running)
        if not self.waiting or room < 1 or len(self.running) >= self.limits.max_num_seqs:
            return False
        request = self.waiting[0]
        return self.kv.can_admit(request, self.kv.find_cached(request))

    def find(self, request_id: RequestId) -> EngineRequest | None:
        """Return the request of that id, or None. O(requests)."""
        return next((r for r in self.requests() if r.request_id == request_id), None)

    def _schedule_running(self, builder: _PlanBuilder) -> bool:
        """Plan the running requests; return whether any was preempted."""
        preempted = False
        position = 0
        while position < len(self.running) and builder.budget > 0:
            request = self.running[position]
            num_new = min(request.num_tokens - request.num_computed_tokens, builder.budget)
            while not self.kv.grow(request, num_new):
                preempted = True
                if self._preempt_youngest() is request:
                    return preempted
            builder.add(request, num_new)
            position += 1
        return preempted

    def _schedule_waiting(self, builder: _PlanBuilder) -> None:
        while self.waiting and builder.budget > 0 and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            hit = self.kv.find_cached(request)
            num_cached = hit.num_blocks * self.kv.block_size_tokens
            num_new = min(request.num_tokens - num_cached, builder.budget)
            if not self.kv.admit(request, hit, num_new):
                return
            self.waiting.popleft()
            self.running.append(request)
            self._account_admission(request, num_cached)
            builder.add(request, num_new, is_new=request.status is RequestStatus.WAITING)
            request.status = RequestStatus.RUNNING

    def _account_admission(self, request: EngineRequest, num_cached: int) -> None:
        if request.num_cached_tokens is None:
            request.num_cached_tokens = num_cached
            self.num_prompt_tokens += request.num_prompt_tokens
            self.num_cached_tokens += num_cached
        self.num_recomputed_tokens += max(0, request.num_lost_tokens - num_cached)
        request.num_lost_tokens = 0

    def _preempt_youngest(self) -> EngineRequest:
        request = self.running.pop()
        self.kv.release(request)
        request.num_lost_tokens = request.num_computed_tokens
        request.num_computed_tokens = 0
        request.status = RequestStatus.PREEMPTED
        self.waiting.appendleft(request)
        self.num_preemptions += 1
        return request


class _PlanBuilder:
    """Collects a step's requests and the sums that its duration depends on."""

    __slots__ = ("_kv_read", "_new_requests", "_pairs", "_scheduled", "_tokens", "budget")

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._scheduled: list[tuple[EngineRequest, int]] = []
        self._tokens = self._kv_read = self._new_requests = 0
        self._pairs = 0.0

    def add(self, request: EngineRequest, num_new: int, *, is_new: bool = False) -> None:
        before = request.num_computed_tokens
        self.budget -= num_new
        self._scheduled.append((request, num_new))
        self._tokens += num_new
        self._kv_read += before
        self._new_requests += is_new
        if num_new > 1:
            self._pairs += num_new * (before + num_new / 2)

    def build(self) -> StepPlan | None:
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
