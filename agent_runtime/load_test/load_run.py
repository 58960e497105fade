"""Runs a load test: probes the server, starts sessions when they are due, stops in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from agent_runtime.backends.vllm_servers.engine_http import EngineHttp
from agent_runtime.load_test.arrivals import ArrivalKind, lane_starts, poisson_times, trace_times
from agent_runtime.load_test.client_health import ClientHealth
from agent_runtime.load_test.load_log import LoadLog
from agent_runtime.load_test.load_plan import LoadPlan
from agent_runtime.load_test.model_caller import ModelCaller
from agent_runtime.load_test.request_form import ReplyLength, RequestMaker, forms
from agent_runtime.load_test.server_probe import KnownServer, ServerProbe, served_model
from agent_runtime.load_test.session_player import SessionPlayer, Stage
from agent_runtime.load_test.session_source import SessionSource
from agent_runtime.load_test.shared_blocks import SharedBlocks
from agent_runtime.load_test.silence_watch import SilenceWatch
from agent_runtime.load_test.word_stream import WordStream
from agent_runtime.workload.session_script import SessionScript

HEAD_START_S = 0.25
"""A session's first prompt is made so long before it is due."""


def _ignore(_: str) -> None:
    pass


@dataclass(slots=True)
class LoadRun:
    """One load test, and all that it has seen, however it ends.

    Attributes:
        plan: What to do.
        http: How the server is reached.
        clock_s: The time, from any origin.
        cpu_s: CPU seconds of this process so far.
        note: Told what is done before the load begins.
        log, health: What was seen.
        server: What was found out about it; None before.
        began_s: When the load began, on the clock; NaN before.
        ended_s: When it ended, in seconds since it began; NaN before.
        watch: The calls under way.
    """

    plan: LoadPlan
    http: EngineHttp
    clock_s: Callable[[], float]
    cpu_s: Callable[[], float]
    note: Callable[[str], None] = _ignore
    log: LoadLog = field(default_factory=LoadLog)
    server: KnownServer | None = None
    began_s: float = math.nan
    ended_s: float = math.nan
    health: ClientHealth = field(init=False)
    watch: SilenceWatch = field(init=False)

    def __post_init__(self) -> None:
        """Make what watches."""
        self.health = ClientHealth(self.now_s, self.cpu_s)
        self.watch = SilenceWatch(self.now_s, self.plan.speech.timeout_s)

    def now_s(self) -> float:
        """Return the seconds since the load began; before that, the clock's."""
        return self.clock_s() - (0.0 if math.isnan(self.began_s) else self.began_s)

    async def run(self) -> None:
        """Run it to its end. Cancelled, it has seen what it has seen.

        Raises:
            BackendError: The server does not answer as it must before it is loaded.
            ConfigError: The plan can't be run, or the server has several models.
        """
        self.plan.check()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.watch.run)
            caller = ModelCaller(
                self.http,
                f"{self.plan.base_url}/v1/chat/completions",
                self.watch,
                self.now_s,
            )
            self.server = await self._known(caller)
            stage = self._stage(caller, self.server)
            self.note("loading")
            self.began_s = self.clock_s()
            tasks.start_soon(self.health.run)
            try:
                await self._load(stage)
            finally:
                self.ended_s = self.now_s()
            tasks.cancel_scope.cancel()

    async def _known(self, caller: ModelCaller) -> KnownServer:
        plan, speech = self.plan, self.plan.speech
        model = plan.model or await served_model(self.http, plan.base_url)
        requests = RequestMaker(
            model,
            forms(ReplyLength.NATURAL)[0],
            speech.identity,
            speech.session_header,
            speech.more,
            speech.headers,
        )
        probe = ServerProbe(caller, plan.base_url, requests)
        return await probe.ask(speech.reply_length, self.note)

    def _stage(self, caller: ModelCaller, server: KnownServer) -> Stage:
        plan = self.plan
        size = plan.workload.block_size_tokens
        shared = SharedBlocks(plan.workload.sessions)
        return Stage(
            caller,
            server.requests,
            WordStream(size, server.tokenisation.tokens_per_word, shared, plan.salt),
            server.tokenisation,
            size,
            self.log,
            self.now_s,
            plan.phases.stop_s,
            plan.gap_scale,
            plan.after_error,
            plan.speech.history,
            f"{plan.salt}-" if plan.salt else "",
        )

    async def _load(self, stage: Stage) -> None:
        """Play sessions until none is left, or the wait for the last of them is over."""
        phases = self.plan.phases
        async with anyio.create_task_group() as tasks:
            if phases.duration_s is not None:
                deadline_s = anyio.current_time() + phases.stop_s + phases.drain_s
                tasks.cancel_scope.deadline = deadline_s
            if self.plan.arrivals.kind is ArrivalKind.CLOSED:
                await self._closed_loop(stage, tasks)
            else:
                tasks.start_soon(self._open_loop, stage, tasks)

    async def _closed_loop(self, stage: Stage, tasks: TaskGroup) -> None:
        """Start the lanes: in each, a session starts when the one before it has ended."""
        plan = self.plan
        source = SessionSource(
            plan.workload.sessions, again=plan.phases.duration_s is not None, most=None
        )

        async def lane(due_s: float) -> None:
            await anyio.sleep(max(0.0, due_s - HEAD_START_S - self.now_s()))
            while due_s < stage.stop_s and (taken := source.next()) is not None:
                player = SessionPlayer(stage, *taken)
                player.prepare()  # nobody set a time, so it is due when it can be sent
                due_s = max(due_s, self.now_s())
                await player.play(due_s)

        for due_s in lane_starts(plan.num_sessions or 1, plan.phases.ramp_s):
            tasks.start_soon(lane, due_s)

    async def _open_loop(self, stage: Stage, tasks: TaskGroup) -> None:
        """Start sessions at their times, whatever the server does."""
        for due_s, (script, round_number) in self._arriving():
            if due_s >= stage.stop_s:
                return
            await anyio.sleep(max(0.0, due_s - HEAD_START_S - self.now_s()))
            tasks.start_soon(SessionPlayer(stage, script, round_number).play, due_s)

    def _arriving(self) -> Iterator[tuple[float, tuple[SessionScript, int]]]:
        plan = self.plan
        is_trace = plan.arrivals.kind is ArrivalKind.TRACE
        times = (
            trace_times(plan.workload.arrives_s or (), plan.gap_scale)
            if is_trace
            else poisson_times(plan.arrivals.rate_per_s or 0.0, plan.phases.ramp_s, plan.seed)
        )
        again = plan.phases.duration_s is not None and not is_trace
        source = SessionSource(plan.workload.sessions, again, plan.num_sessions)
        for due_s in times:
            taken = source.next()
            if taken is None:
                return
            yield due_s, taken
