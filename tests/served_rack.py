"""The real gateway over the emulated rack on a loopback port, a thousand times faster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import openai
import uvicorn
from starlette.applications import Starlette

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.backends.emulator import EmulatedRack
from agent_runtime.cli.rack_server import listen
from agent_runtime.clock import Clock
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.gateway.dashboard import DashboardTerms
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.gateway.view_routes import ViewRoutes
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from scheduler.cluster_scheduler import ClusterScheduler
from tests.engines import deployment

MODEL = "qwen3-8b"
BLOCK = 16


@dataclass(frozen=True)
class ServedRack:
    url: str
    app: Starlette
    rack: EmulatedRack
    scheduler: ClusterScheduler
    dashboard: ViewRoutes | None

    async def wait_until_idle(self) -> None:
        with anyio.fail_after(10):
            while self.rack.kv_active_ratio() > 0:
                await anyio.sleep(0.001)
        self.rack.check_invariants()
        self.scheduler.check_invariants()


@asynccontextmanager
async def served_rack(
    *,
    speed: float = 1000.0,
    max_body_bytes: int = 1 << 20,
    max_sessions: int = 100,
    speaker: EmulatedModel | ChatUpstream | None = None,
    dashboard: DashboardTerms | None = None,
    tenants: TenantKeys | None = None,
) -> AsyncIterator[ServedRack]:
    plan = deployment(MODEL, num_replicas=2, block_size_tokens=BLOCK)
    options = ServiceOptions(
        Band.BASE,
        "panjiu",
        EngineLimits(),
        endpoint=EndpointLimits(max_body_bytes=max_body_bytes, max_sessions=max_sessions),
        dashboard=dashboard,
        tenants=tenants,
    )
    service = EmulatedService(
        plan,
        options,
        Clock(speed),
        SeededModel() if speaker is None else speaker,
        epoch_s=lambda: 1_700_000_000.0,
    )
    async with anyio.create_task_group() as rack_tasks:
        rack_tasks.start_soon(service.rack.run)
        config = uvicorn.Config(
            service.app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, ws="none"
        )
        server = uvicorn.Server(config)
        with listen("127.0.0.1", 0) as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                yield ServedRack(
                    url, service.app, service.rack, service.scheduler, service.dashboard
                )
                server.should_exit = True
        rack_tasks.cancel_scope.cancel()


@asynccontextmanager
async def openai_client(served: ServedRack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{served.url}/v1", api_key="-", max_retries=0, timeout=30
    ) as client:
        yield client
