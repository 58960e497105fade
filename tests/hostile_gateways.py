"""Both gateways, without clients' sockets: what is asked reaches the app byte by byte."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the loop is ours here
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
from starlette.applications import Starlette

from agent_runtime.asgi_exchange import AsgiExchange, AsgiRequest
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.gateway.dashboard import DashboardTerms
from agent_runtime.gateway.relay.relay_app import RelayTerms
from agent_runtime.gateway.tenants import TenantKeys
from tests.patient_engine import PatientEngine
from tests.served_engines import served_engines
from tests.served_rack import served_rack

MAX_BODY_BYTES = 10 << 20
ANSWERED_S = 20.0
"""A request that takes longer hangs."""
ENDLESS = "/view/stream"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Gateway:
    """One of them.

    Attributes:
        kind: Which.
        check: Raises if scheduler or residency are not as they must be.
        engine: Behind it; None for the emulated rack.
    """

    kind: str
    app: Starlette
    check: Callable[[], None]
    engine: PatientEngine | None = None

    async def ask(self, asked: AsgiRequest) -> Answer:
        """Return what is answered; of a stream that has no end, how it begins."""
        exchange = AsgiExchange(asked)
        body = b""
        with anyio.fail_after(ANSWERED_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(exchange.run, self.app)
                try:
                    await exchange.wait_for_response()
                    async for chunk in exchange.body():
                        body += chunk
                        if asked.target.startswith(ENDLESS.encode()):
                            break
                finally:
                    exchange.leave()
        assert exchange.status is not None
        names = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in exchange.headers]
        return Answer(exchange.status, dict(names), body)

    async def send(
        self, method: str, target: str, body: Any = None, *, key: str | None = None, **more: str
    ) -> Answer:
        """Ask for what is right."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = [(b"content-type", b"application/json")]
        if key is not None:
            headers.append((b"authorization", b"Bearer " + key.encode()))
        headers += [
            (name.replace("_", "-").encode(), value.encode()) for name, value in more.items()
        ]
        return await self.ask(
            AsgiRequest(method, "http", "test", 80, target.encode(), headers, content)
        )

    async def session_ids(self, key: str | None = None) -> list[str]:
        """Return the sessions of whoever has the key."""
        ids: list[str] = []
        has_more = True
        while has_more:
            after = f"&after={quote(ids[-1], safe='')}" if ids else ""
            page = (await self.send("GET", f"/v1/sessions?limit=100{after}", key=key)).json()
            ids += [card["id"] for card in page["data"]]
            has_more = page["has_more"]
        return ids


@asynccontextmanager
async def emulated_gateway(
    tenants: TenantKeys | None = None, dashboard: str | None = None
) -> AsyncIterator[Gateway]:
    """The gateway over the emulated rack."""
    async with served_rack(
        max_body_bytes=MAX_BODY_BYTES,
        max_sessions=1000,
        dashboard=DashboardTerms(dashboard),
        tenants=tenants,
    ) as served:

        def check() -> None:
            served.scheduler.check_invariants()
            served.rack.check_invariants()

        yield Gateway("emulated", served.app, check)


@asynccontextmanager
async def gateway_before_an_engine(
    tenants: TenantKeys | None = None, dashboard: str | None = None
) -> AsyncIterator[Gateway]:
    """The gateway before an engine that takes everything."""
    limits = EndpointLimits(max_body_bytes=MAX_BODY_BYTES, max_sessions=1000)
    engine = PatientEngine()
    async with served_engines(
        [engine], terms=RelayTerms(limits, tenants), dashboard=DashboardTerms(dashboard)
    ) as served:

        def check() -> None:
            served.service.scheduler.check_invariants()
            served.servers.probe.residency.check_invariants()

        yield Gateway("engines", served.service.app, check, engine)


GATEWAYS = {"emulated": emulated_gateway, "engines": gateway_before_an_engine}


@dataclass(frozen=True)
class Hosted:
    """A gateway on a loop of its own, for tests that are no coroutines, as hypothesis' are."""

    gateway: Gateway
    runner: asyncio.Runner

    def run(self, work: Callable[[Gateway], Coroutine[Any, Any, None]]) -> None:
        """Have it do something."""
        self.runner.run(work(self.gateway))


@contextmanager
def hosted(opened: AbstractAsyncContextManager[Gateway]) -> Iterator[Hosted]:
    """Open a gateway, which is at work whenever something runs on its loop."""
    with asyncio.Runner() as runner:
        end = asyncio.Event()
        found: list[Gateway] = []

        async def host() -> None:
            async with opened as gateway:
                found.append(gateway)
                await end.wait()

        async def start() -> asyncio.Task[None]:
            task = asyncio.create_task(host())  # enters and leaves its scopes in one task
            while not found and not task.done():
                await anyio.sleep(0.001)
            return task

        async def stop(task: asyncio.Task[None]) -> None:
            end.set()
            await task

        task = runner.run(start())
        if found:
            yield Hosted(found[0], runner)
        runner.run(stop(task))
