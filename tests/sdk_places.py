"""Where programs of the SDK run in tests: in the process in virtual time, and over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from agent_runtime.clock import Clock
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.reply_limits import ReplyLength
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_model.tool_use import ToolUse
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.sdk import Emulation, Runtime, RuntimeOptions
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from tests.engines import deployment
from tests.served_rack import served_rack

MODEL = "qwen3-8b"
Program = Callable[[Runtime], Awaitable[Any]]


def caller(mean_steps: float = 4, mean_calls: float = 2, seed: int = 1) -> EmulatedModel:
    """Return a model that calls tools."""
    return SeededModel(seed, ReplyLength(30), ToolUse(mean_steps, 8, mean_calls))


def in_virtual_time(
    program: Program,
    model: EmulatedModel | None = None,
    *,
    options: RuntimeOptions | None = None,
    loop_class: type[VirtualTimeLoop] = VirtualTimeLoop,
) -> Any:
    """Run a program on the emulated rack in the process; nothing may be left of it there."""
    return on_the_rack(
        lambda runtime, _: program(runtime), model, options=options, loop_class=loop_class
    )


def on_the_rack(
    program: Callable[[Runtime, EmulatedService], Awaitable[Any]],
    model: EmulatedModel | None = None,
    *,
    options: RuntimeOptions | None = None,
    loop_class: type[VirtualTimeLoop] = VirtualTimeLoop,
) -> Any:
    """Run a program that may look at the rack; nothing of it may be left there."""
    clock = VirtualClock()
    service = EmulatedService(
        deployment(MODEL, num_replicas=2, block_size_tokens=16),
        ServiceOptions(Band.BASE, "panjiu", EngineLimits()),
        Clock(origin_s=0.0),
        SeededModel(1) if model is None else model,
        epoch_s=lambda: 0.0,
    )

    async def main() -> Any:
        transport = StreamingAsgiTransport(service.app)
        async with Runtime.connect(
            "http://rack/v1", transport=transport, options=options or RuntimeOptions()
        ) as runtime:
            assert runtime.model == MODEL
            result = await program(runtime, service)
        await anyio.sleep(1)
        service.rack.check_invariants()
        service.scheduler.check_invariants()
        assert service.rack.kv_active_ratio() == 0, "every turn is over"
        assert service.scheduler.num_sessions == 0, "sessions that are left are closed"
        return result

    def loop() -> VirtualTimeLoop:
        return loop_class(clock=clock, world=service.rack)

    return anyio.run(main, backend_options={"loop_factory": loop})


def over_http(program: Program, model: EmulatedModel | None = None) -> Any:
    """Run a program against the endpoint on a port of this machine."""

    async def main() -> Any:
        async with (
            served_rack(speaker=SeededModel(1) if model is None else model) as served,
            Runtime.connect(f"{served.url}/v1") as runtime,
        ):
            result = await program(runtime)
            await served.wait_until_idle()
            assert served.scheduler.num_sessions == 0
            return result

    return anyio.run(main)


def emulated(program: Program, model: EmulatedModel | None = None) -> Any:
    """Run a program on ``Runtime.emulated``, in virtual time."""

    async def main() -> Any:
        emulation = Emulation(num_replicas=2, replies=model, seed=1)
        async with Runtime.emulated(model=MODEL, emulation=emulation) as runtime:
            return await program(runtime)

    return anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})


PLACES = [in_virtual_time, over_http, emulated]
