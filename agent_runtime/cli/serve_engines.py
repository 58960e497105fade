"""``panjiu serve --engine``: the scheduler before real vLLM servers."""

from __future__ import annotations

import argparse
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec

import anyio
from rich.console import Console

from agent_runtime.backends.vllm_engine.in_process_engine import open_in_process_engine
from agent_runtime.backends.vllm_engine.in_process_http import beside_in_process_engine
from agent_runtime.backends.vllm_servers.engine_connections import open_engine_http
from agent_runtime.backends.vllm_servers.engine_discovery import EngineDirectory
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.engine_http import EngineHttp
from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.cli.endpoint_options import endpoint_limits, opened_journal, tenant_keys
from agent_runtime.cli.engine_options import (
    engine_key,
    engine_sources,
    in_process_arguments,
    num_slots,
)
from agent_runtime.cli.graceful_stop import GracefulStop
from agent_runtime.cli.rack_options import emulated_machine
from agent_runtime.cli.rack_server import endpoint_config
from agent_runtime.cli.watch_options import dashboard_line, dashboard_terms, traced_app
from agent_runtime.clock import Clock
from agent_runtime.engine_service import EngineService, EngineServiceOptions
from agent_runtime.errors import BackendError, told_plainly
from agent_runtime.gateway.relay.relay_app import RelayTerms
from hw_model.claim import Band
from scheduler.cost import CostModel, TabulatedCost

SETTLE_S = 0.5
"""After the first engine, for others that are up too: the least KV of any is planned with."""


def loop_options() -> dict[str, object]:
    """Return what anyio is to run under: uvloop if it is there, which moves more chunks."""
    return {"use_uvloop": find_spec("uvloop") is not None}


async def serve_engines(
    args: argparse.Namespace, listener: socket.socket, stop: GracefulStop
) -> None:
    """Serve until stopped.

    Raises:
        ConfigError: Options that can't be, a package that is missing.
        BackendError: No engine came up in time.
    """
    console = Console(stderr=True)

    def notice(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    sources, key = engine_sources(args), engine_key()
    fleet = EngineFleet(num_slots(args))
    fleet.notice = notice
    clock = Clock()
    tenants = tenant_keys(args)
    dashboard = dashboard_terms(args, tenants)
    with told_plainly():
        async with (
            opened_journal(args, notice) as journal,
            _engines_http(args, key) as http,
            anyio.create_task_group() as tasks,
        ):
            relay = RelayTerms(endpoint_limits(args), tenants, key is not None, journal)
            options = EngineServiceOptions(
                args.policy,
                args.kv_tokens,
                args.max_num_batched_tokens,
                relay,
                args.seed,
                dashboard,
            )
            servers = VllmServers(fleet, http, EngineDirectory(sources, notice), clock)
            tasks.start_soon(servers.run)
            await _first_engine(fleet, args.wait_s)
            service = EngineService(servers, options, clock, cost=_known_cost(args))
            url = "http://{}:{}".format(*listener.getsockname()[:2])
            notice(
                f"policy {args.policy}; room for {len(fleet.slots)} engines, "
                f"{service.runtime.max_context_tokens:,} tokens of KV each\n"
                f"{service.capabilities().describe()}\n"
                f"listening on {url}/v1  (Ctrl-C stops)" + dashboard_line(dashboard, tenants, url)
            )
            config = endpoint_config(traced_app(args, service.app))
            await stop.serve(config, service, listener)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def _engines_http(args: argparse.Namespace, key: str | None) -> AsyncIterator[EngineHttp]:
    """Open the way to engines over the network, and to the one in this process if it is wanted."""
    arguments = in_process_arguments(args)
    async with AsyncExitStack() as stack:
        http: EngineHttp = await stack.enter_async_context(open_engine_http(key))
        if arguments:
            app = await stack.enter_async_context(open_in_process_engine(arguments))
            http = await stack.enter_async_context(beside_in_process_engine(app, http))
        yield http


async def _first_engine(fleet: EngineFleet, wait_s: float) -> None:
    came = anyio.Event()
    fleet.on_change = lambda _: came.set()
    with anyio.move_on_after(wait_s):
        await came.wait()
        await anyio.sleep(SETTLE_S)
        return
    problems = [
        f"{slot.address.url}: {slot.problem or 'no answer'}" for slot in fleet.slots if slot.address
    ]
    said = "; ".join(problems) or "none was named"
    raise BackendError(f"no engine came up in {wait_s:g} s: {said}")


def _known_cost(args: argparse.Namespace) -> CostModel | None:
    """Return what work costs on the hardware that the options name; None to learn it."""
    if not args.known_hardware:
        return None
    band = Band(args.band)
    deployment = emulated_machine(args).deployment(band, args.block_size)
    return TabulatedCost.of(deployment, band, args.max_num_batched_tokens)
