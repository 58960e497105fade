"""Our engine in the same scenarios, with the same record of every step."""

from __future__ import annotations

from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.step_scheduler import EngineLimits, StepPlan, StepScheduler
from tests.vllm.scenarios import Scenario, ScenarioRequest

StepRecord = list
"""``[[[id, tokens scheduled], ...], [ids preempted], free blocks, distinct blocks cached]``"""

MAX_STEPS = 5_000


def replay(given: Scenario) -> list[StepRecord]:
    """Run a scenario to its end, checking invariants at every step; return one record a step."""
    kv = KvManager(
        given.num_blocks - 1, given.block_size, enable_prefix_caching=given.prefix_caching
    )
    scheduler = StepScheduler(kv, EngineLimits(given.max_num_batched_tokens, given.max_num_seqs))
    arrivals, aborts = list(given.requests), list(given.aborts)
    steps: list[StepRecord] = []
    while (arrivals or scheduler.waiting or scheduler.running) and len(steps) < MAX_STEPS:
        while arrivals and arrivals[0].at_step <= len(steps):
            scheduler.waiting.append(_request(arrivals.pop(0), given.block_size))
        while aborts and aborts[0][0] <= len(steps):
            _abort(scheduler, RequestId(aborts.pop(0)[1]))
        before = {request.request_id for request in scheduler.running}
        plan = scheduler.schedule()
        preempted = before - {request.request_id for request in scheduler.running}
        scheduled = sorted(
            [request.request_id, num_new] for request, num_new in (plan.scheduled if plan else ())
        )
        steps.append([scheduled, sorted(preempted), kv.pool.num_free, len(kv.pool._found)])
        if plan is not None:
            _compute(scheduler, plan)
        kv.pool.check_invariants(request.table for request in scheduler.requests())
    return steps


def _compute(scheduler: StepScheduler, plan: StepPlan) -> None:
    for request, num_new in plan.scheduled:
        request.num_computed_tokens += num_new
        if request.num_computed_tokens == request.num_tokens:
            request.num_generated_tokens += 1
            if request.num_generated_tokens == request.num_output_tokens:
                scheduler.finish(request)


def _abort(scheduler: StepScheduler, request_id: RequestId) -> None:
    request = scheduler.find(request_id)
    if request is None:
        return
    if request in scheduler.running:
        scheduler.finish(request)
    else:
        scheduler.waiting.remove(request)


def _request(given: ScenarioRequest, block_size: int) -> EngineRequest:
    context = given.tokens[: given.num_prompt_tokens + given.num_output_tokens]
    hashes, parent = [], 0
    for start in range(0, len(context) - block_size + 1, block_size):
        parent = hash((parent, context[start : start + block_size]))
        hashes.append(parent)
    return EngineRequest(
        RequestId(given.request_id), given.num_prompt_tokens, given.num_output_tokens, hashes
    )
