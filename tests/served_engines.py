"""The gateway before look-alike engines, all on loopback ports."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import uvicorn

from agent_runtime.backends.vllm_servers.circuit_breaker import BreakerSettings
from agent_runtime.backends.vllm_servers.engine_connections import open_engine_http
from agent_runtime.backends.vllm_servers.engine_discovery import EngineDirectory, EngineSources
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.cli.rack_server import endpoint_config
from agent_runtime.clock import Clock
from agent_runtime.engine_service import EngineService, EngineServiceOptions
from agent_runtime.gateway.dashboard import DashboardTerms
from agent_runtime.gateway.relay.relay_app import RelayTerms
from tests.lookalike_engine import LookalikeEngine, Running, running_engine

BREAKER = BreakerSettings(max_failures=3, first_wait_s=0.02, max_wait_s=0.1)


@dataclass
class ServedEngines:
    url: str
    service: EngineService
    servers: VllmServers
    notices: list[str]
    running: list[Running] = field(default_factory=list)

    @property
    def engines(self) -> list[LookalikeEngine]:
        return [one.engine for one in self.running]

    def engine_of(self, url: str) -> LookalikeEngine:
        return next(one.engine for one in self.running if one.url == url)


async def until(condition: Any, what: str = "") -> None:
    """Wait until something holds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


@asynccontextmanager
async def gateway_before(
    urls: Sequence[str],
    *,
    policy: str = "panjiu",
    file: str | None = None,
    max_engines: int = 4,
    wait_for: int | None = None,
    kv_tokens: int | None = None,
    terms: RelayTerms | None = None,
    dashboard: DashboardTerms | None = None,
) -> AsyncIterator[ServedEngines]:
    """Serve the gateway before engines, once ``wait_for`` (all) of them are up."""
    async with open_engine_http() as http, anyio.create_task_group() as tasks:
        notices: list[str] = []
        fleet = EngineFleet(max_engines, BREAKER)
        fleet.notice = notices.append
        sources = EngineSources(() if file is not None else urls, file)
        directory = EngineDirectory(sources, notices.append, reread_s=0.02)
        clock = Clock()
        servers = VllmServers(fleet, http, directory, clock, poll_s=0.02, stall_s=0.2)
        tasks.start_soon(servers.run)
        num_wanted = len(urls) if wait_for is None else wait_for
        await until(lambda: fleet.num_up == num_wanted)
        options = EngineServiceOptions(
            policy, kv_tokens, relay=terms or RelayTerms(), dashboard=dashboard
        )
        service = EngineService(servers, options, clock)
        server = uvicorn.Server(endpoint_config(service.app, grace_s=1))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with anyio.create_task_group() as serving:
                serving.start_soon(server.serve, [listener])
                await until(lambda: server.started)
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                yield ServedEngines(url, service, servers, notices)
                server.should_exit = True
        service.scheduler.check_invariants()
        servers.probe.residency.check_invariants()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def served_engines(
    engines: Sequence[LookalikeEngine],
    *,
    events: bool = False,
    policy: str = "panjiu",
    file: str | None = None,
    wait_for: int | None = None,
    terms: RelayTerms | None = None,
    dashboard: DashboardTerms | None = None,
) -> AsyncIterator[ServedEngines]:
    """Serve look-alike engines and the gateway before them."""
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(running_engine(engine, events=events))
            for engine in engines
        ]
        urls = [one.url for one in running]
        if file is not None:
            await anyio.Path(file).write_text("\n".join(urls))
        gateway = gateway_before(
            urls, policy=policy, file=file, wait_for=wait_for, terms=terms, dashboard=dashboard
        )
        served = await stack.enter_async_context(gateway)
        served.running = running
        yield served


def chat_body(content: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 8, **fields}


async def streamed(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> bytes:
    """Return all bytes of a streamed answer."""
    async with client.stream("POST", url, json={**body, "stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        return b"".join([data async for data in response.aiter_bytes()])
