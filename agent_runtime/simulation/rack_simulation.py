"""The discrete-event driver: a workload on the emulated rack, as fast as the CPU allows.

A heap and no coroutines. It drives the same ``ClusterScheduler`` and ``EngineCore`` as the endpoint
does. Cost: O(events); an event is a turn's arrival or the end of an engine's step or decode run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent_runtime.backends.engine_probe import EngineProbe
from agent_runtime.backends.kv_orders import carry_out
from agent_runtime.measurement.timeline_sampler import TimelineSampler
from agent_runtime.measurement.turn_log import TurnLog, TurnTimes
from agent_runtime.simulation.event_queue import EventQueue
from agent_runtime.simulation.held_turn_log import HeldTurnLog
from agent_runtime.simulation.script_oracle import ScriptOracle
from agent_runtime.simulation.session_run import SessionRun
from agent_runtime.workload.session_script import SessionScript, Workload, start_times
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore, TokensGenerated
from hw_model.engine.host_tier import HostTier, HostTierSpec
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.request_queue import SchedulingPolicy
from hw_model.engine.solo_turn import solo_turn_s
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.step_time import StepTimeModel
from hw_model.ttft_boundary import TtftBoundary
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Command, Dispatch, Refuse
from scheduler.cost import TabulatedCost
from scheduler.decision import Decision
from scheduler.events import (
    Event,
    GapCause,
    GapHint,
    PrefillEnded,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import SessionId, TurnId
from scheduler.policies import make_policy, policy_entry
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup

ARRIVAL_PRIORITY, WAKE_PRIORITY, ENGINE_PRIORITY = 0, 1, 2
"""At equal times turns arrive before engines step, so a step sees all who are there."""

WAKE = -1
"""Stands in the queue for the scheduler, where replicas are from 0 on."""


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """How a workload is put on the rack.

    Attributes:
        band: Which machine within what is known.
        policy: Name of the placement policy.
        seed: Of the sessions' start times.
        start_window_s: Top-level sessions start at random in ``[0, start_window_s)``, unless the
            workload says when.
        limits: Batch limits of every engine.
        host_bytes_per_chip: Host memory for KV, written through and loaded from; 0 for HBM alone.
        concurrency: So many top-level sessions at a time; the next starts when one ends. None lets
            all start when their workload says.
        max_idle_s: When no turn is under way and none comes for longer, all come as much sooner.
        ttft_boundary: Whose clock turns are timed on. On the client's they take the way to the
            engine as well, and so do sessions.
    """

    band: Band = Band.BASE
    policy: str = "panjiu"
    seed: int = 0
    start_window_s: float = 60.0
    limits: EngineLimits = field(default_factory=EngineLimits)
    host_bytes_per_chip: float = 0.0
    concurrency: int | None = None
    max_idle_s: float = float("inf")
    ttft_boundary: TtftBoundary = TtftBoundary.CLIENT


class RackSimulation:
    """One run of one workload. Build, ``run()``, then read the log, the engines and the sampler.

    Args:
        workload: The sessions.
        deployment: What serves them; its block size is the workload's.
        options: See ``SimulationOptions``.
        successor: Asked at the end of every top-level session, with its script and the time, for
            one that starts then; without it the sessions of the workload are all there are.
        on_decision: Told of every decision of the scheduler.
    """

    def __init__(
        self,
        workload: Workload,
        deployment: Deployment,
        options: SimulationOptions,
        successor: Callable[[SessionScript, float], SessionScript | None] | None = None,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        self.log = TurnLog()
        self.sampler = TimelineSampler()
        self.step_time = StepTimeModel(deployment, options.band)
        host_spec = (
            HostTierSpec.of(deployment, options.band, options.host_bytes_per_chip)
            if options.host_bytes_per_chip
            else None
        )
        limits = options.limits
        if policy_entry(options.policy).uses_priorities:
            limits = replace(limits, policy=SchedulingPolicy.PRIORITY)
        self.engines = [
            EngineCore(
                KvManager(deployment.kv_blocks, deployment.block_size_tokens),
                limits,
                self.step_time,
                host=None if host_spec is None else HostTier(host_spec),
                progress=False,
            )
            for _ in range(deployment.num_replicas)
        ]
        self.num_turns_by_replica = [0] * deployment.num_replicas
        self.refused: list[tuple[SessionRun, Refuse]] = []
        self.num_failed_sessions = 0
        self.held = HeldTurnLog()
        self.now_s = 0.0
        self.last_ended_s = 0.0  # a turn; the scheduler may be woken later
        self._workload = workload
        self._successor = successor
        self._options = options
        self._block_size_tokens = deployment.block_size_tokens
        boundary = options.ttft_boundary
        self._front_end = boundary.front_end(deployment.chip, options.band)
        self._runs: dict[SessionId, SessionRun] = {}
        setup = PolicySetup(
            fleet=ReplicaFleet(
                num_replicas=deployment.num_replicas,
                max_context_tokens=deployment.kv_tokens,
                block_size_tokens=deployment.block_size_tokens,
                max_num_batched_tokens=limits.max_num_batched_tokens,
                host_kv_tokens=0
                if host_spec is None
                else host_spec.capacity_blocks * deployment.block_size_tokens,
            ),
            cost=TabulatedCost.of(deployment, options.band, limits.max_num_batched_tokens),
            seed=options.seed,
            oracle=ScriptOracle(self._runs),
        )
        self._scheduler = ClusterScheduler(
            setup.fleet, make_policy(options.policy, setup), on_decision, EngineProbe(self.engines)
        )
        self._wake_s: float | None = None
        self._queue: EventQueue[SessionRun | int] = EventQueue()
        self._scheduled_s: list[float | None] = [None] * deployment.num_replicas
        self._active: dict[RequestId, SessionRun] = {}
        self._num_live_sessions = 0
        self._busy_until_s = 0.0  # when a turn last arrived or ended
        self._not_begun: deque[SessionScript] = deque()  # they wait for another one's end

    def run(self, on_turn: Callable[[int], None] | None = None) -> None:
        """Run every session to its end.

        Args:
            on_turn: Called after every turn with the number of turns ended so far.
        """
        starts_s = start_times(self._workload, self._options.start_window_s, self._options.seed)
        at_once = self._options.concurrency or len(starts_s)
        for script, at_s in zip(self._workload.sessions[:at_once], starts_s, strict=False):
            self._start(script, at_s, None)
        self._not_begun.extend(self._workload.sessions[at_once:])
        while self._queue:
            now_s, item = self._next_event()
            if isinstance(item, SessionRun):
                self.now_s = now_s
                self._arrive(item)
            elif item == WAKE:
                if self._wake_s == now_s:
                    self.now_s = now_s
                    self._wake_s = None
                    self._tell(Woken())
            elif self._scheduled_s[item] == now_s:
                self.now_s = now_s
                self._advance(item, on_turn)
            if now_s >= self.sampler.next_s:
                self._sample()
        for engine in self.engines:
            engine.settle(self.now_s)

    def _next_event(self) -> tuple[float, SessionRun | int]:
        """Take the next event, once no turn keeps everybody idle for longer than is allowed."""
        at_s, item = self._queue.peek()
        if not self._active and isinstance(item, SessionRun):
            latest_s = max(self.now_s, self._busy_until_s + self._options.max_idle_s)
            if at_s > latest_s:
                self._bring_forward(at_s, latest_s)
        return self._queue.pop()

    def _bring_forward(self, next_s: float, to_s: float) -> None:
        """Let every turn that is to come be sent sooner; engines keep their own time."""
        for item in self._queue.bring_forward(ARRIVAL_PRIORITY, to_s):
            if isinstance(item, SessionRun):
                item.sent_s -= next_s - to_s
                if item.next_turn == 0:
                    item.started_s -= next_s - to_s

    def _start(self, script: SessionScript, at_s: float, parent: SessionRun | None) -> None:
        self._num_live_sessions += 1
        run = SessionRun(script, at_s, parent)
        self._runs[script.session_id] = run
        self._send(run, at_s)

    def _send(self, run: SessionRun, at_s: float) -> None:
        run.sent_s = at_s
        before_engine_s = self._front_end.before_engine_s(run.turn.isl_tokens)
        self._queue.push(at_s + before_engine_s, ARRIVAL_PRIORITY, run)

    def _arrive(self, run: SessionRun) -> None:
        self._busy_until_s = self.now_s
        turn, session_id = run.turn, run.script.session_id
        turn_id = TurnId(f"{session_id}#{run.next_turn}")
        parent_id = None if run.parent is None else run.parent.script.session_id
        run.arrive(self._block_size_tokens)
        self._active[RequestId(turn_id)] = run
        self._tell(
            TurnArrived(
                turn_id,
                session_id,
                turn.isl_tokens,
                turn.osl_tokens,
                parent_id,
                block_hashes=run.chain.hashes,
            )
        )

    def _tell(self, event: Event) -> None:
        """Let the scheduler know, and do what it says."""
        for command in self._scheduler.handle(event, self.now_s):
            self._carry_out(command)
        wake_s = self._scheduler.next_wake_s
        at_s = None if wake_s is None else max(wake_s, self.now_s)
        if at_s is not None and at_s != self._wake_s:
            self._wake_s = at_s
            self._queue.push(at_s, WAKE_PRIORITY, WAKE)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Dispatch(turn_id=turn_id, replica_id=replica):
                self._dispatch(self._active[RequestId(turn_id)], command)
            case Refuse(turn_id=turn_id):
                run = self._active.pop(RequestId(turn_id))
                self.refused.append((run, command))
                run.fail()
                self._end_session(run)
            case _:
                replica = command.replica_id
                run = self._runs[command.session_id]
                carry_out(command, run.chain.hashes, self.engines, self.now_s)
                self._reschedule(replica)

    def _dispatch(self, run: SessionRun, dispatch: Dispatch) -> None:
        turn, replica = run.turn, dispatch.replica_id
        request = EngineRequest(
            RequestId(dispatch.turn_id),
            turn.isl_tokens,
            turn.osl_tokens,
            run.chain.hashes,
            dispatch.priority,
        )
        self.num_turns_by_replica[replica] += 1
        before_engine_s = self._front_end.before_engine_s(turn.isl_tokens)
        self.held.dispatched(run, self.now_s - before_engine_s)
        self.engines[replica].add(request, self.now_s)
        self._reschedule(replica)

    def _advance(self, replica: int, on_turn: Callable[[int], None] | None) -> None:
        for generated in self.engines[replica].advance(self.now_s):
            run = self._active[generated.request_id]
            if run.first_token_s is None:
                run.first_token_s = generated.at_s
                turn_id = TurnId(generated.request_id)
                self._tell(PrefillEnded(turn_id, generated.num_cached_tokens))
            if generated.finished:
                del self._active[generated.request_id]
                self._end_turn(run, generated)
                if on_turn is not None:
                    on_turn(self.log.num_turns)
        self._scheduled_s[replica] = None
        self._reschedule(replica)

    def _reschedule(self, replica: int) -> None:
        next_s = self.engines[replica].next_event_s
        if next_s is not None and next_s != self._scheduled_s[replica]:
            self._scheduled_s[replica] = next_s
            self._queue.push(next_s, ENGINE_PRIORITY, replica)

    def _end_turn(self, run: SessionRun, generated: TokensGenerated) -> None:
        self._busy_until_s = self.last_ended_s = self.now_s
        self.log.turn_ended(
            TurnTimes(
                sent_s=run.sent_s,
                first_token_s=self.now_s if run.first_token_s is None else run.first_token_s,
                ended_s=self.now_s,
                osl_tokens=run.turn.osl_tokens,
                num_recomputed_tokens=max(0, run.num_reusable_tokens - generated.num_cached_tokens),
            )
        )
        run.model_time.actual_s += self.now_s - run.sent_s
        before_engine_s = self._front_end.before_engine_s(run.turn.isl_tokens)
        run.model_time.solo_s += before_engine_s + solo_turn_s(
            self.step_time,
            num_prompt_tokens=run.turn.isl_tokens,
            num_cached_tokens=run.num_reusable_tokens,
            num_output_tokens=run.turn.osl_tokens,
            max_num_batched_tokens=self._options.limits.max_num_batched_tokens,
        )
        turn = run.end_turn()
        num_context_tokens = turn.isl_tokens + turn.osl_tokens
        hint = GapHint(GapCause.CHILDREN) if turn.children else turn.then
        self._tell(TurnEnded(TurnId(generated.request_id), num_context_tokens, hint))
        run.num_running_children = len(turn.children)
        for child in turn.children:
            self._start(child, self.now_s + child.start_delay_s, run)
        if not turn.children:
            self._go_on(run)

    def _go_on(self, run: SessionRun) -> None:
        """Schedule the next turn of a session that waits for nobody, or end it."""
        if run.is_done:
            self._end_session(run)
        else:
            self._send(run, self.now_s + run.turn.gap_s)

    def _end_session(self, run: SessionRun) -> None:
        self._num_live_sessions -= 1
        self._tell(SessionClosed(run.script.session_id))
        del self._runs[run.script.session_id]
        if run.parent is not None:
            run.parent.num_running_children -= 1
            if run.parent.num_running_children == 0:
                self._go_on(run.parent)
            return
        if run.failed:
            self.num_failed_sessions += 1
        else:
            slowdown = run.model_time.actual_s / run.model_time.solo_s
            self.log.session_completed(self.now_s - run.started_s, slowdown)
        following = self._not_begun.popleft() if self._not_begun else None
        if following is None and self._successor is not None:
            following = self._successor(run.script, self.now_s)
        if following is not None:
            self._start(following, self.now_s, None)

    def _sample(self) -> None:
        num_replicas = len(self.engines)
        used = sum(engine.kv_used_ratio for engine in self.engines) / num_replicas
        active = sum(engine.kv_active_ratio for engine in self.engines) / num_replicas
        running, live = float(len(self._active)), float(self._num_live_sessions)
        self.sampler.record(self.now_s, (used, active, running, live))
