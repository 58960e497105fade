"""The real gateway over the emulated rack on a loopback port, a thousand times faster."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import openai
import uvicorn

from agent_runtime.backends.emulator import EmulatedRack, emulated_rack
from agent_runtime.clock import Clock
from agent_runtime.gateway.app import create_app
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.runtime import Runtime
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from scheduler.cluster_scheduler import ClusterScheduler, ReplicaFleet
from scheduler.placement import make_policy
from tests.engines import deployment

MODEL = "qwen3-8b"
BLOCK = 16


@dataclass(frozen=True)
class ServedRack:
    url: str
    rack: EmulatedRack
    scheduler: ClusterScheduler

    async def wait_until_idle(self) -> None:
        with anyio.fail_after(10):
            while self.rack.kv_active_ratio() > 0:
                await anyio.sleep(0.001)
        self.rack.check_invariants()
        self.scheduler.check_invariants()


@asynccontextmanager
async def served_rack(
    *, speed: float = 1000.0, max_body_bytes: int = 1 << 20, max_sessions: int = 100
) -> AsyncIterator[ServedRack]:
    plan = deployment(MODEL, num_replicas=2, block_size_tokens=BLOCK)
    clock = Clock(speed)
    scheduler = ClusterScheduler(ReplicaFleet(2, plan.kv_tokens), make_policy("panjiu", 2))
    async with emulated_rack(plan, Band.BASE, clock, EngineLimits()) as rack:
        runtime = Runtime(scheduler, rack, clock, block_size_tokens=BLOCK)
        app = create_app(
            runtime,
            model=MODEL,
            max_body_bytes=max_body_bytes,
            epoch_s=lambda: 1_700_000_000.0,
            sessions=SessionDirectory(BLOCK, max_sessions=max_sessions),
        )
        config = uvicorn.Config(
            app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, ws="none"
        )
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                yield ServedRack(url, rack, scheduler)
                server.should_exit = True


@asynccontextmanager
async def openai_client(served: ServedRack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{served.url}/v1", api_key="-", max_retries=0, timeout=30
    ) as client:
        yield client
