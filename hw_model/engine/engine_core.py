"""One replica in time: requests go in, ``advance`` says which tokens came out when.

The engine is busy with one step, or one run of equal decode steps, until ``next_event_s``; what it
computes was fixed when it began. Requests that arrive meanwhile are seen at the next step, as in
vLLM. With async scheduling the next step is fixed by then too, and they are seen at the one after.
The engine keeps no clock: it moves only in ``advance``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw_model.engine.decode_run import DecodeRun, DecodingBatch
from hw_model.engine.host_tier import HostTier
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.kv_residency import KvResidency
from hw_model.engine.kv_usage import KvUsage
from hw_model.engine.request import EngineRequest, RequestId, RequestStatus
from hw_model.engine.request_loads import RequestLoads
from hw_model.engine.step_clock import StepTime
from hw_model.engine.step_plan import StepPlan
from hw_model.engine.step_scheduler import EngineLimits, StepScheduler
from hw_model.errors import ConfigError, InvariantError


@dataclass(frozen=True, slots=True)
class TokensGenerated:
    """Output tokens of one request.

    Attributes:
        request_id: Whose.
        num_tokens: How many, >= 1; the first token of a request always comes alone.
        at_s: When the last of them was ready.
        num_cached_tokens: Prompt tokens that were in the prefix cache at admission.
        finished: Whether these were the request's last tokens.
    """

    request_id: RequestId
    num_tokens: int
    at_s: float
    num_cached_tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done so far.

    Attributes:
        busy_s: Seconds with a step under way.
        kv_used_block_s: Integral over time of the blocks that hold KV, held or cached.
        kv_active_block_s: The same of the blocks that running requests hold.
        num_prompt_tokens, num_cached_tokens: Of admitted requests, and their prefix hits.
        num_recomputed_tokens: Tokens computed again after a preemption.
        kv_used_peak_blocks: Most blocks holding KV at once.
    """

    busy_s: float
    kv_used_block_s: float
    kv_active_block_s: float
    kv_used_peak_blocks: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_preemptions: int
    num_recomputed_tokens: int
    num_evicted_blocks: int


class EngineCore:
    """A replica's engine.

    Args:
        kv: Its KV cache, empty.
        limits: Batch limits.
        step_time: How long a step takes.
        host: Its KV in host memory; None for HBM alone.
        progress: Report the tokens of every step or run of steps; else, of requests that don't
            stream, only the first token and, with all in between, the last.
        macro_stepping: Advance unchanging decode batches in closed form, unless one of them
            streams. The same tokens come out at the same times.

    Invariant: ``_plans`` are the steps scheduled and not yet done, at most ``_depth``; a step or a
        run is under way exactly while ``next_event_s`` is set. During a run, ``_plans`` holds what
        was scheduled ahead of it: nothing, or one step of the run's own batch. ``_streaming`` holds
        every request that streams and has not ended.
    """

    def __init__(
        self,
        kv: KvManager,
        limits: EngineLimits,
        step_time: StepTime,
        *,
        host: HostTier | None = None,
        progress: bool = True,
        macro_stepping: bool = True,
    ) -> None:
        self.residency = KvResidency(kv, host, self._interrupt)
        self._loads = RequestLoads(self.residency)
        self._kv = kv
        self._progress = progress
        self._scheduler = StepScheduler(kv, limits)
        self._depth = 2 if limits.async_scheduling else 1
        self._step_time = step_time
        self._macro_stepping = macro_stepping
        self._boundary_s: float | None = None
        self._plans: deque[StepPlan] = deque()
        self._run: DecodeRun | None = None
        self._run_has_blocks = False
        self._aborted: list[EngineRequest] = []
        self._streaming: list[EngineRequest] = []
        self._began_s = 0.0
        self._busy_s = 0.0
        self._usage = KvUsage(kv.pool)

    @property
    def next_event_s(self) -> float | None:
        """When ``advance`` next has something to do; None while idle."""
        return self._boundary_s

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt + output that the KV cache holds."""
        return self._kv.pool.num_blocks * self._kv.block_size_tokens

    @property
    def num_waiting(self) -> int:
        """Requests waiting for admission, or for their KV to be loaded."""
        return len(self._scheduler.waiting) + len(self._loads)

    @property
    def num_running(self) -> int:
        """Requests in the batch."""
        return len(self._scheduler.running)

    @property
    def kv_used_ratio(self) -> float:
        """Share of blocks that hold KV, held by requests or cached."""
        return self._usage.used_ratio

    @property
    def kv_active_ratio(self) -> float:
        """Share of blocks that requests hold; vLLM's ``kv_cache_usage_perc``."""
        return self._usage.active_ratio

    def add(self, request: EngineRequest, now_s: float) -> None:
        """Queue a request; it is considered at the next step.

        Raises:
            ConfigError: Prompt + output can never fit the KV cache.
        """
        num_tokens = request.num_prompt_tokens + request.num_output_tokens
        if num_tokens > self.max_context_tokens:
            raise ConfigError(
                f"request {request.request_id} needs {num_tokens:,} tokens of KV; a replica holds "
                f"{self.max_context_tokens:,}: shorten the context or use a larger TP"
            )
        self._interrupt(now_s)
        self._scheduler.number(request)
        if request.streams:
            self._streaming.append(request)
        if not self._loads.take(request, self._kv.num_findable_blocks(request), now_s):
            self._scheduler.insert(request)

    def abort(self, request_id: RequestId, now_s: float) -> bool:
        """Drop a request; its blocks are free from the end of the step under way.

        As in vLLM, they are freed before those of requests that finish with that step.

        Returns:
            Whether there was such a request.
        """
        request = self._scheduler.find(request_id)
        if request is None:
            return self._loads.drop(request_id, now_s)
        if request in self._aborted:
            return False
        if request.status is RequestStatus.RUNNING:
            self._aborted.append(request)
        else:
            self._scheduler.finish(request)
        self._interrupt(now_s)  # whoever waited behind it may be admitted
        return True

    def end_output(self, request: EngineRequest, num_tokens: int, now_s: float) -> None:
        """Let a request stop at ``num_tokens`` output tokens: its end was not known before.

        It stops later if the step under way takes it beyond, and never later than it would have.
        """
        if request.status is RequestStatus.FINISHED:
            return
        self._interrupt(now_s)
        ahead = request.num_output_placeholders
        if self._run is not None and request.status is RequestStatus.RUNNING:
            ahead += self._run.num_steps
        least = request.num_generated_tokens + max(1, ahead)
        request.num_output_tokens = min(request.num_output_tokens, max(num_tokens, least))

    def advance(self, to_s: float) -> list[TokensGenerated]:
        """Run all steps that end by ``to_s``; return their tokens in order of time."""
        generated: list[TokensGenerated] = []
        while self._boundary_s is not None and self._boundary_s <= to_s:
            at_s = self._boundary_s
            self._end_step(at_s, generated)
            self._begin_step(at_s)
        return generated

    def stats(self) -> EngineStats:
        """Return what the engine has done up to the last step boundary."""
        scheduler = self._scheduler
        return EngineStats(
            busy_s=self._busy_s,
            kv_used_block_s=self._usage.used_block_s,
            kv_active_block_s=self._usage.active_block_s,
            kv_used_peak_blocks=self._usage.peak_blocks,
            num_prompt_tokens=scheduler.num_prompt_tokens,
            num_cached_tokens=scheduler.num_cached_tokens,
            num_preemptions=scheduler.num_preemptions,
            num_recomputed_tokens=scheduler.num_recomputed_tokens,
            num_evicted_blocks=self._kv.pool.num_evicted,
        )

    def settle(self, now_s: float) -> None:
        """Bring the time integrals up to ``now_s``, e.g. at the end of a simulation."""
        self._usage.account(max(now_s, self._usage.now_s))

    def check_invariants(self) -> None:
        """Raise if the engine contradicts itself. O(blocks).

        Raises:
            InvariantError: Names the invariant that is broken.
        """
        scheduler = self._scheduler
        tables = [request.table for request in scheduler.requests()]
        self._kv.pool.check_invariants([*tables, *self.residency.tables()])
        self.residency.check_invariants()
        for request in scheduler.waiting:
            if request.status is RequestStatus.RUNNING or request.table.num_blocks:
                raise InvariantError(f"{request.request_id} waits with the state of a running one")
        for request in scheduler.running:
            held = request.table.num_blocks * self._kv.block_size_tokens
            if request.status is not RequestStatus.RUNNING or request.num_computed_tokens > held:
                raise InvariantError(f"{request.request_id} runs without the blocks it has filled")
        if scheduler.running and self._boundary_s is None:
            raise InvariantError("requests are running and no step is under way")

    def _interrupt(self, now_s: float) -> None:
        """Have the scheduler look again at the end of the step under way, or at once if idle."""
        if self._boundary_s is None:
            self.settle(now_s)  # until now the blocks were what whoever interrupts will change
            self._boundary_s = now_s
        elif self._run is not None and not self._run_has_blocks:
            self._run.truncate(now_s)
            self._boundary_s = self._run.end_s
            self._give_run_its_blocks(self._run.num_steps)

    def _begin_step(self, at_s: float) -> None:
        if self._loads or not self.residency.is_idle:
            self._queue_loaded(at_s)
        self._run = self._plan_run(at_s) if self._macro_stepping else None
        self._began_s = at_s
        arrival_s = None if self.residency.is_idle else self.residency.next_event_s
        if self._run is not None:
            if arrival_s is not None:
                self._run.truncate(arrival_s)
            self._boundary_s = self._run.end_s
        else:
            self._schedule_ahead()
            while not self._plans and arrival_s is None and self._give_up_retained(at_s):
                self._schedule_ahead()
                arrival_s = self.residency.next_event_s
            self._boundary_s = (
                at_s + self._step_time.step_s(self._plans[0].shape) if self._plans else arrival_s
            )
            self._loads.release_admitted(at_s)
        self._usage.note_peak()

    def _queue_loaded(self, at_s: float) -> None:
        """Queue the requests whose KV has arrived, and begin the loads that there is room for."""
        for request in self._loads.arrived(self.residency.settle(at_s), at_s):
            self._scheduler.insert(request)

    def _give_up_retained(self, at_s: float) -> bool:
        """Make room where somebody waits and nothing else would make any."""
        somebody_waits = self._scheduler.waiting or self._loads
        if not somebody_waits or not self.residency.give_up_oldest():
            return False
        self._queue_loaded(at_s)
        return True

    def _schedule_ahead(self) -> None:
        """Schedule until ``_depth`` steps are, or nothing can be."""
        scheduler = self._scheduler
        while len(self._plans) < self._depth:
            num_preemptions = scheduler.num_preemptions
            plan = scheduler.schedule()
            if plan is not None:
                self._plans.append(plan)
            elif self._plans or scheduler.num_preemptions == num_preemptions:
                # vLLM looks again at the end of the step under way. Without one it does so at once,
                # which changes something only after a preemption.
                return

    def _end_step(self, at_s: float, generated: list[TokensGenerated]) -> None:
        self._usage.account(at_s)
        if self._run is not None:
            self._busy_s += at_s - self._began_s
            self._end_run(self._run.num_steps, at_s, generated)
            self._run = None
        elif self._plans:
            self._busy_s += at_s - self._began_s
            self._drop_aborted()
            sampled = self._scheduler.update(self._plans.popleft())
            generated += self._tokens_of(sampled, 1, at_s)
        self.residency.write_through(at_s)

    def _plan_run(self, at_s: float) -> DecodeRun | None:
        """Plan decode steps up to the next change of the batch; None if a step must be planned.

        A run may go on beside a blocked queue: decoding only takes blocks, so who can't be admitted
        now can't be until somebody finishes.
        """
        running = self._scheduler.running
        if not running or len(running) > self._scheduler.limits.max_num_batched_tokens:
            return None
        if self._streaming and self._somebody_streams():
            return None
        num_ahead = self._depth - 1
        if num_ahead and not self._is_ahead_by(num_ahead):
            return None
        if self._scheduler.can_admit():
            return None
        batch = DecodingBatch.of(running, num_ahead, self._kv.block_size_tokens)
        num_steps = 0 if batch is None else batch.steps_with_room(self._kv.pool.num_free)
        if batch is None or num_steps < 1:
            return None
        line = self._step_time.decode_line(len(running))
        return DecodeRun(at_s, num_steps, len(running), batch.kv_tokens, line)

    def _somebody_streams(self) -> bool:
        self._streaming = [r for r in self._streaming if r.status is not RequestStatus.FINISHED]
        return bool(self._streaming)

    def _is_ahead_by(self, num_steps: int) -> bool:
        """Return whether so many steps are scheduled, each a decode step of who is running."""
        return len(self._plans) == num_steps and all(
            plan.is_decode and plan.shape.num_sequences == len(self._scheduler.running)
            for plan in self._plans
        )

    def _end_run(self, num_steps: int, at_s: float, generated: list[TokensGenerated]) -> None:
        scheduler = self._scheduler
        if not self._run_has_blocks:
            self._give_run_its_blocks(num_steps)
        self._run_has_blocks = False
        for position, plan in enumerate(self._plans):
            self._plans[position] = plan.after_decode_steps(num_steps)
        self._drop_aborted()
        batch = tuple(scheduler.running) if self._progress else ()
        finished = scheduler.end_decode_steps(num_steps)
        generated += self._tokens_of(batch or finished, num_steps, at_s)

    def _give_run_its_blocks(self, num_steps: int) -> None:
        """Allocate what the steps of a run fill, as far as it goes on.

        At its end, or as soon as anybody may look at the pool: steps that are planned one by one
        have their blocks from their beginning.
        """
        if not self._kv.grow_all(self._scheduler.running, num_steps):
            raise InvariantError("a decode run outgrew the blocks it was planned with")
        self._run_has_blocks = True

    def _drop_aborted(self) -> None:
        for request in self._aborted:
            self._scheduler.finish(request)
        self._aborted.clear()

    def _tokens_of(
        self, requests: Sequence[EngineRequest], num_tokens: int, at_s: float
    ) -> Iterator[TokensGenerated]:
        """Report the newest tokens of requests that got equally many."""
        for request in requests:
            finished = request.status is RequestStatus.FINISHED
            generated = request.num_generated_tokens
            newest = num_tokens
            if not self._progress and not request.streams:
                if not finished and generated > 1:
                    continue
                newest = max(1, generated - 1)
            cached = request.num_cached_tokens or 0
            yield TokensGenerated(request.request_id, newest, at_s, cached, finished)
