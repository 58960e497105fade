"""One run of a program against the emulated rack, from its first line to the rack's report."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import uvicorn
from typing_extensions import override

from agent_runtime.cli.rack_server import listen
from agent_runtime.clock import Clock, epoch_s
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.errors import InternalError
from agent_runtime.measurement.summary import RunDetail
from agent_runtime.simulation.program_http import RACK_HOST
from agent_runtime.simulation.program_time import EPOCH_S
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_program import VirtualProgram
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore
from scheduler.decision import Decision

INTERRUPTED = 130
SIGNALLED = 128
"""Plus its number is the exit code of a program that a signal ended, as shells have it."""

GRACE_S = 5.0
"""What a program has to end after it was told to."""


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """What to run, on what.

    Attributes:
        script: The program.
        args: Its arguments.
        deployment: What serves it.
        options: How; measured.
        emulated_model: Says what is answered.
        stopwatch: Wall seconds from any origin.
        on_decision: Told of every decision of the scheduler, if anybody is.
        on_engines: Given the engines, one a replica, before they run.
    """

    script: Path
    args: Sequence[str]
    deployment: Deployment
    options: ServiceOptions
    emulated_model: EmulatedModel
    stopwatch: Callable[[], float]
    on_decision: Callable[[Decision], None] | None
    on_engines: Callable[[Sequence[EngineCore]], None] | None = None

    def service(self, clock: Clock, epoch_s: Callable[[], float]) -> EmulatedService:
        """Return the rack, idle."""
        service = EmulatedService(
            self.deployment,
            self.options,
            clock,
            self.emulated_model,
            epoch_s=epoch_s,
            on_decision=self.on_decision,
        )
        if self.on_engines is not None:
            self.on_engines(service.rack.engines)
        return service

    def environment(self, base_url: str) -> dict[str, str]:
        """Return the variables through which the program finds the rack."""
        return {
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_BASE": base_url,  # older clients
            "OPENAI_API_KEY": os.environ.get("OPENAI_API_KEY", "panjiu"),
            "PANJIU_BASE_URL": base_url,
            "PANJIU_MODEL": self.deployment.model.name,
        }


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        exit_code: The program's; 130 when it was interrupted.
        detail: What the rack did.
    """

    exit_code: int
    detail: RunDetail


def run_virtual(run: ScriptRun) -> RunOutcome:
    """Run the program in this process, in virtual time."""
    began_s = run.stopwatch()
    clock = VirtualClock()
    service = run.service(Clock(origin_s=0.0), lambda: EPOCH_S + clock.now_s)
    program = VirtualProgram(service.app, service.rack, clock, run.options.seed)
    try:
        environment = run.environment(f"http://{RACK_HOST}/v1")
        exit_code = program.run(run.script, run.args, environment)
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    return RunOutcome(exit_code, _detail(service, clock.now_s, run.stopwatch() - began_s))


async def run_live(run: ScriptRun, speed: float) -> RunOutcome:
    """Run the program in a process of its own, against a port of this machine.

    Args:
        run: What to run.
        speed: Emulated seconds per second.
    """
    began_s = run.stopwatch()
    clock = Clock(speed)
    service = run.service(clock, epoch_s)
    exit_code = INTERRUPTED
    with listen("127.0.0.1", 0) as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_interrupted, tasks.cancel_scope)
            tasks.start_soon(service.rack.run)
            tasks.start_soon(_Server(service).serve, [listener])
            exit_code = await _exit_code(run, base_url)
            tasks.cancel_scope.cancel()
    return RunOutcome(exit_code, _detail(service, clock.now_s(), run.stopwatch() - began_s))


async def _cancel_when_interrupted(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def _exit_code(run: ScriptRun, base_url: str) -> int:
    command = [sys.executable, str(run.script), *run.args]
    environment = {**os.environ, **run.environment(base_url)}
    process = await anyio.open_process(
        command, stdin=None, stdout=None, stderr=None, env=environment
    )
    try:
        code = await process.wait()
        return code if code >= 0 else SIGNALLED - code
    finally:
        if process.returncode is None:
            process.terminate()
            with anyio.CancelScope(shield=True), anyio.move_on_after(GRACE_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
        await process.aclose()


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    def __init__(self, service: EmulatedService) -> None:
        super().__init__(
            uvicorn.Config(
                service.app, log_level="warning", access_log=False, lifespan="off", ws="none"
            )
        )

    @override
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _detail(service: EmulatedService, ended_s: float, wall_s: float) -> RunDetail:
    if service.live_run is None:
        raise InternalError("a run must be measured")
    return service.live_run.detail(ended_s, wall_s)
