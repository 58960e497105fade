"""Load tests in virtual time: against the emulated rack, or an app that a test makes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.backends.vllm_engine.in_process_http import IN_PROCESS_URL, InProcessEngine
from agent_runtime.backends.vllm_servers.engine_http import EngineReply, EngineUnreachableError
from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.load_test.arrivals import Arrivals
from agent_runtime.load_test.load_plan import LoadPlan
from agent_runtime.load_test.load_run import LoadRun
from agent_runtime.load_test.phases import Phases
from agent_runtime.load_test.summarise import summarise
from agent_runtime.load_test.summary import LoadSummary
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from scheduler.ids import SessionId
from tests.engines import deployment

BLOCK = 16
ONCE = Phases(0.0, 0.0, None, 60.0)


class NobodyThere:
    """No server but the one in the process."""

    async def get(self, url: str) -> tuple[int, bytes]:
        raise EngineUnreachableError(url, refused=True)

    async def send(self, method: str, url: str, body: bytes, headers: Any) -> EngineReply:
        raise EngineUnreachableError(f"{url}: nobody listens", refused=True)


def session(name: str, *turns: tuple[int, int, float], first_block: int = 0) -> SessionScript:
    """Return a session of ``(prompt tokens, output tokens, gap)``, with blocks of its own."""
    return SessionScript(
        SessionId(name),
        tuple(
            ScriptedTurn(isl, osl, gap_s, ((first_block, first_block + isl // BLOCK - 1),))
            for isl, osl, gap_s in turns
        ),
    )


def workload(*sessions: SessionScript, arrives_s: tuple[float, ...] | None = None) -> Workload:
    return Workload("test", BLOCK, sessions, arrives_s=arrives_s)


def small_workload(num_sessions: int = 4, num_turns: int = 3) -> Workload:
    return workload(
        *(
            session(
                f"s{index}",
                *((400 + 300 * turn, 20 + 5 * index, 0.5) for turn in range(num_turns)),
                first_block=1000 * index,
            )
            for index in range(num_sessions)
        )
    )


def plan_of(
    work: Workload, arrival: str = "closed", num_sessions: int | None = 2, **more
) -> LoadPlan:
    options: dict[str, Any] = {"phases": ONCE, **more}
    return LoadPlan(
        IN_PROCESS_URL, "qwen3-8b", work, Arrivals.parse(arrival), num_sessions, **options
    )


def emulated_rack(num_replicas: int = 2) -> tuple[EmulatedService, VirtualClock]:
    clock = VirtualClock()
    service = EmulatedService(
        deployment("qwen3-8b", num_replicas=num_replicas, block_size_tokens=BLOCK),
        ServiceOptions(Band.BASE, "panjiu", EngineLimits(), measured=True),
        Clock(origin_s=0.0),
        SeededModel(1),
        epoch_s=lambda: 0.0,
    )
    return service, clock


def loaded(
    app: AsgiApp,
    plan: LoadPlan,
    loop: Callable[[], VirtualTimeLoop] = VirtualTimeLoop,
    *,
    stop_after_s: float | None = None,
    cpu_s: Callable[[], float] = lambda: 0.0,
) -> tuple[LoadSummary, LoadRun]:
    """Run a plan against an app in virtual time; interrupted after so long, if it is said."""

    async def main() -> LoadRun:
        async with anyio.create_task_group() as tasks:
            http = InProcessEngine(app, NobodyThere(), tasks)
            run = LoadRun(plan, http, anyio.current_time, cpu_s)
            with anyio.move_on_after(stop_after_s):
                await run.run()
            tasks.cancel_scope.cancel()
        return run

    run = anyio.run(main, backend_options={"loop_factory": loop})
    summary = summarise(run, interrupted=stop_after_s is not None)
    assert summary is not None
    return summary, run


def loaded_rack(plan: LoadPlan, **more) -> tuple[LoadSummary, LoadRun, EmulatedService]:
    """Run a plan against the emulated rack."""
    service, clock = emulated_rack()
    summary, run = loaded(
        service.app, plan, lambda: VirtualTimeLoop(clock=clock, world=service.rack), **more
    )
    return summary, run, service


def with_speech(plan: LoadPlan, **more) -> LoadPlan:
    return replace(plan, speech=replace(plan.speech, **more))
