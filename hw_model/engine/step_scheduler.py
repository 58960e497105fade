"""What one step computes: vLLM V1's ``Scheduler.schedule()`` for full attention.

Running requests first, in order; each gets the tokens it lacks, within the step's token budget. If
the pool is full a running request is preempted, the youngest or the least urgent by policy: it
loses its blocks and goes back to the queue. Waiting requests are admitted only in a step without
preemption, until the budget, ``max_num_seqs`` or the pool is exhausted. Prompts are computed in
chunks.

With async scheduling a step is planned before the output of the one ahead of it is known. A token
that is still to come is a placeholder: it gets a block, which is not found by others until the
token is known. What a preempted request had under way is stale: its token counts, its KV is lost.
vLLM doesn't admit the request again before that token is there; as no more than one step is under
way when the next is planned, and a step that preempts admits nobody, it always is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId, RequestStatus
from hw_model.engine.request_queue import RequestQueue, SchedulingPolicy, request_queue
from hw_model.engine.step_plan import PlanBuilder, StepPlan


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """vLLM's limits and policies, by vLLM's names and defaults for an API server.

    Attributes:
        max_num_batched_tokens: New tokens in one step.
        max_num_seqs: Requests running at once.
        policy: Who is admitted first and preempted last.
        long_prefill_token_threshold: Most new tokens of one request in a step while there are
            others; 0 for no such limit.
        long_prefill_token_threshold_adaptive: Whether that limit is at least a fair share of
            ``max_num_batched_tokens``.
        async_scheduling: Plan each step while the one before it is computed. Off by default here,
            whereas vLLM turns it on where it can.
    """

    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256
    policy: SchedulingPolicy = SchedulingPolicy.FCFS
    long_prefill_token_threshold: int = 0
    long_prefill_token_threshold_adaptive: bool = False
    async_scheduling: bool = False


class StepScheduler:
    """The queues of one engine.

    Invariant: a request is in ``waiting`` (WAITING or PREEMPTED, without blocks) or in ``running``
        (RUNNING), never in both; ``len(running) <= max_num_seqs``.
    """

    __slots__ = (
        "_is_async",
        "_num_arrived",
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
        self._is_async = limits.async_scheduling
        self.waiting: RequestQueue = request_queue(limits.policy)
        self.running: list[EngineRequest] = []
        self.num_prompt_tokens = 0  # of requests admitted so far, each counted once
        self.num_cached_tokens = 0  # how many of those were in the prefix cache
        self.num_preemptions = 0
        self.num_recomputed_tokens = 0  # computed, lost to a preemption, computed again
        self._num_arrived = 0

    def add(self, request: EngineRequest) -> None:
        """Queue a new request."""
        self.number(request)
        self.waiting.add(request)

    def number(self, request: EngineRequest) -> None:
        """Give a new request its place in the order of arrival, to be queued by ``insert``."""
        request.arrival_order = self._num_arrived
        self._num_arrived += 1

    def insert(self, request: EngineRequest) -> None:
        """Queue a numbered request before all that came after it."""
        self.waiting.insert(request)

    def schedule(self) -> StepPlan | None:
        """Plan the next step and allocate its blocks; None when there is nothing to run."""
        builder = PlanBuilder(self.limits.max_num_batched_tokens, is_async=self._is_async)
        most = self._most_new_tokens()
        if not self._schedule_running(builder, most):
            self._schedule_waiting(builder, most)
        return builder.build()

    def update(self, plan: StepPlan) -> list[EngineRequest]:
        """Take in the output of the oldest step planned; return who got a token, in order."""
        sampled = []
        for request, num_new, samples in plan.scheduled:
            if request.status is RequestStatus.FINISHED:
                continue  # aborted since
            if self._is_async:
                request.num_in_flight_tokens -= num_new
                if request.num_stale_tokens:
                    request.num_stale_tokens -= num_new  # its placeholder went with the preemption
                else:
                    request.num_output_placeholders -= samples
            if samples:
                self._append_token(request)
                sampled.append(request)
        return sampled

    def _append_token(self, request: EngineRequest) -> None:
        """Give a request a token it has sampled; the last one it wanted finishes it."""
        request.num_generated_tokens += 1
        if self._is_async and request.status is RequestStatus.RUNNING:
            self._commit_known(request)
        if request.num_generated_tokens == request.num_output_tokens:
            self.finish(request)

    def end_decode_steps(self, num_steps: int) -> list[EngineRequest]:
        """Give every running request the tokens of so many decode steps.

        Returns:
            Those that have all they wanted, in order.
        """
        finished = []
        for request in self.running:
            request.num_computed_tokens += num_steps
            generated = request.num_generated_tokens + num_steps
            request.num_generated_tokens = generated
            if generated == request.num_output_tokens:
                finished.append(request)
            elif self._is_async:
                self._commit_known(request)
        for request in finished:
            self.finish(request)
        return finished

    def finish(self, request: EngineRequest) -> None:
        """Take a request out and free its blocks."""
        if request.status is RequestStatus.RUNNING:
            self.running.remove(request)
            self.kv.release(request)
        else:
            self.waiting.remove(request)
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
        request = self.waiting.peek()
        return self.kv.can_admit(request, self.kv.find_cached(request))

    def find(self, request_id: RequestId) -> EngineRequest | None:
        """Return the request of that id, or None. O(requests)."""
        return next((r for r in self.requests() if r.request_id == request_id), None)

    def _commit_known(self, request: EngineRequest) -> None:
        self.kv.commit(request, request.num_computed_tokens - request.num_output_placeholders)

    def _most_new_tokens(self) -> int:
        """Return how many new tokens one request may compute in this step."""
        budget = self.limits.max_num_batched_tokens
        threshold = self.limits.long_prefill_token_threshold
        num_requests = len(self.running) + len(self.waiting)
        if threshold == 0 or num_requests <= 1:
            return budget
        if self.limits.long_prefill_token_threshold_adaptive:
            threshold = max(threshold, budget // num_requests)
        return min(threshold, budget)

    def _schedule_running(self, builder: PlanBuilder, most: int) -> bool:
        """Plan the running requests; return whether any was preempted."""
        num_preemptions = self.num_preemptions
        position = 0
        while position < len(self.running) and builder.budget > 0:
            request = self.running[position]
            unscheduled = _num_unscheduled_tokens(request)
            if unscheduled > 0:
                # Not drawn anew if a preemption gives budget back.
                num_new = min(unscheduled, most, builder.budget)
                while not self.kv.grow(request, num_new):
                    victim = self._pick_victim()
                    position -= victim < position
                    builder.drop(self.running[victim])
                    if self._preempt(victim) is request:
                        return True
                builder.add(request, num_new)
            position += 1
        return self.num_preemptions > num_preemptions

    def _schedule_waiting(self, builder: PlanBuilder, most: int) -> None:
        while self.waiting and builder.budget > 0 and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting.peek()
            hit = self.kv.find_cached(request)
            num_cached = hit.num_blocks * self.kv.block_size_tokens
            num_new = min(request.num_tokens - num_cached, most, builder.budget)
            if not self.kv.admit(request, hit, num_new):
                return
            self.waiting.pop()
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

    def _pick_victim(self) -> int:
        """Return the position in ``running`` of the request to preempt next."""
        if self.limits.policy is SchedulingPolicy.FCFS:
            return len(self.running) - 1
        return max(
            range(len(self.running)),
            key=lambda at: (self.running[at].priority, self.running[at].arrival_order),
        )

    def _preempt(self, position: int) -> EngineRequest:
        request = self.running.pop(position)
        self.kv.release(request)
        request.num_lost_tokens = request.num_computed_tokens
        request.num_computed_tokens = 0
        request.num_stale_tokens = request.num_in_flight_tokens
        request.num_output_placeholders = 0
        request.status = RequestStatus.PREEMPTED
        self.waiting.prepend(request)
        request.num_preemptions += 1
        self.num_preemptions += 1
        return request


def _num_unscheduled_tokens(request: EngineRequest) -> int:
    """Return how many tokens a running request lacks; none once its last is a placeholder."""
    generated = request.num_generated_tokens + request.num_output_placeholders
    if generated >= request.num_output_tokens:
        return 0
    return request.num_prompt_tokens + generated - request.num_computed_tokens
