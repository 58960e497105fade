"""Our engine in the same scenarios, with the same record of every call of the engine's step."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from hw_model.engine.kv_events import BlocksRemoved, BlocksStored, KvEventLog
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId, RequestStatus
from hw_model.engine.request_queue import SchedulingPolicy
from hw_model.engine.step_plan import StepPlan
from hw_model.engine.step_scheduler import EngineLimits, StepScheduler
from hw_model.step_time import StepShape
from tests.vllm.kv_event_digest import KvEventDigest
from tests.vllm.scenarios import Scenario, ScenarioRequest

StepRecord = list[Any]
"""One call of the engine's step: ``[[[id, tokens scheduled], ...], [ids preempted], free blocks,
distinct blocks cached, blocks evicted so far, [ids finished by output]]``; the first five as they
are once the step is scheduled, none of them when nothing was left to schedule."""

MAX_STEPS = 5_000


class Replay:
    """A scenario's way through our scheduler, driven as vLLM's ``EngineCore`` drives its own.

    Attributes:
        steps: A record for each call so far.
        shapes: The steps themselves, as the engine's clock would see them.
        aborted: How often a request was aborted in which state.
        num_stale: Tokens that came for a preempted request.
    """

    def __init__(self, given: Scenario) -> None:
        self.given = given
        self._log = KvEventLog()
        self._digest = KvEventDigest()
        self.kv = KvManager(
            given.num_blocks - 1,
            given.block_size,
            enable_prefix_caching=given.prefix_caching,
            log=self._log,
        )
        self.scheduler = StepScheduler(self.kv, limits_of(given))
        self.steps: list[StepRecord] = []
        self.shapes: list[StepShape] = []
        self.aborted: Counter[str] = Counter()
        self.num_stale = 0
        # vLLM schedules once more after a request has ended, to tell its workers.
        self._has_news = False
        self._batches: deque[StepPlan | None] = deque()
        self._late_aborts: list[str] = []

    def run(self) -> list[StepRecord]:
        """Run to the end, checking invariants at every step; return one record a call."""
        arrivals, aborts = list(self.given.requests), list(self.given.aborts)
        while (arrivals or self._has_requests() or self._batches) and len(self.steps) < MAX_STEPS:
            while arrivals and arrivals[0].at_step <= len(self.steps):
                self.scheduler.add(engine_request(arrivals.pop(0), self.given.block_size))
            while aborts and aborts[0].at_step <= len(self.steps):
                abort = aborts.pop(0)
                if abort.during_step:
                    self._late_aborts.append(abort.request_id)
                else:
                    self._abort(abort.request_id)
            self.steps.append(self._step())
            self.kv.pool.check_invariants(request.table for request in self.scheduler.requests())
        return self.steps

    def events(self) -> list[int | str]:
        """Return what was told of the prefix cache so far, as :class:`KvEventDigest` sums it up."""
        for event in self._log.take():
            if isinstance(event, BlocksStored):
                self._digest.tell([("stored", event.parent_hash, event.hashes)])
            elif isinstance(event, BlocksRemoved):
                self._digest.tell([("removed", None, event.hashes)])
        return self._digest.result()

    def _has_requests(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting or self._has_news)

    def _step(self) -> StepRecord:
        record: StepRecord = []
        if self._has_requests():
            record = self._schedule()
            has_room = self.given.async_scheduling and len(self._batches) == 1
            if has_room and (self._batches[0] is not None or self._has_requests()):
                return [*record, []]
        elif not self._batches:
            return [[]]
        for request_id in self._late_aborts:
            self._abort(request_id)
        self._late_aborts.clear()
        plan = self._batches.popleft()
        return [*record, self._update(plan) if plan is not None else []]

    def _schedule(self) -> StepRecord:
        before = {request.request_id for request in self.scheduler.running}
        plan = self.scheduler.schedule()
        self._has_news = False
        self._batches.append(plan)
        if plan is not None:
            self.shapes.append(plan.shape)
        preempted = before - {request.request_id for request in self.scheduler.running}
        pool = self.kv.pool
        return [
            sorted([r.request_id, num_new] for r, num_new, _ in (plan.scheduled if plan else ())),
            sorted(preempted),
            pool.num_free,
            len(pool._found),
            pool.num_evicted,
        ]

    def _update(self, plan: StepPlan) -> list[str]:
        self.num_stale += sum(r.num_stale_tokens > 0 and last for r, _, last in plan.scheduled)
        ended = [
            request.request_id
            for request in self.scheduler.update(plan)
            if request.status is RequestStatus.FINISHED
        ]
        self._has_news |= bool(ended)
        return sorted(ended)

    def _abort(self, request_id: str) -> None:
        request = self.scheduler.find(RequestId(request_id))
        if request is None:
            return
        state = request.status.name.lower()
        if request.status is RequestStatus.RUNNING:
            if request.num_generated_tokens + 1 == request.num_output_tokens:
                state = "about to finish"
            elif request.is_decoding:
                state = "decoding"
            else:
                state = "in prefill"
        self.aborted[state] += 1
        self.scheduler.finish(request)
        self._has_news = True


def limits_of(given: Scenario) -> EngineLimits:
    """Return a scenario's limits as the engine takes them."""
    return EngineLimits(
        given.max_num_batched_tokens,
        given.max_num_seqs,
        SchedulingPolicy(given.policy),
        given.long_prefill_token_threshold,
        given.long_prefill_token_threshold_adaptive,
        given.async_scheduling,
    )


def engine_request(given: ScenarioRequest, block_size: int) -> EngineRequest:
    """Return a scenario's request as the engine takes it."""
    context = given.tokens[: given.num_prompt_tokens + given.num_output_tokens]
    hashes, parent = [], 0
    for start in range(0, len(context) - block_size + 1, block_size):
        parent = hash((parent, context[start : start + block_size]))
        hashes.append(parent)
    return EngineRequest(
        RequestId(given.request_id),
        given.num_prompt_tokens,
        given.num_output_tokens,
        hashes,
        given.priority,
    )
