"""``panjiu serve``: the emulated rack, or real engines, behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import anyio
from rich.console import Console

from agent_runtime.cli.endpoint_options import (
    add_endpoint_options,
    endpoint_limits,
    opened_journal,
    tenant_keys,
)
from agent_runtime.cli.engine_options import add_engine_options, engine_sources, names_engines
from agent_runtime.cli.graceful_stop import GracefulStop
from agent_runtime.cli.open_files import raise_open_files
from agent_runtime.cli.rack_options import (
    EmulatedMachine,
    add_rack_options,
    add_service_options,
    emulated_machine,
    natural_int,
    positive_float,
)
from agent_runtime.cli.rack_server import endpoint_config, listen
from agent_runtime.cli.serve_engines import loop_options, serve_engines
from agent_runtime.cli.speaker_options import add_speaker_options, check_speaker, chosen_speaker
from agent_runtime.cli.watch_options import (
    add_watch_options,
    dashboard_line,
    dashboard_terms,
    traced_app,
)
from agent_runtime.clock import Clock, epoch_s
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.errors import told_plainly
from agent_runtime.gateway.dashboard import DashboardTerms
from agent_runtime.gateway.tenants import TenantKeys
from hw_model.claim import Band
from scheduler.policies import policy_entry

DESCRIPTION = """\
Serve the emulated rack to clients of OpenAI's and Anthropic's APIs: same scheduler and engines as
'simulate', in real time or faster. Texts, tool calls and JSON are made up, said by a script
(--replies) or by a real server (--paced, chat completions only); timing, batching, prefix hits and
preemption are modelled.

With --engine, the same scheduler runs before real vLLM servers instead: it decides where and when
every turn of a session runs; the bytes pass as they are.

Sessions are named by the body's "session_id", by the header X-Session-ID, or, without either, found
by their messages: a request that continues a known conversation is its next turn."""

EXAMPLES = """\
examples:
  panjiu serve
  panjiu serve --model qwen3-8b --band high --port 9000
  panjiu serve --speed 20                             twenty emulated seconds a second
  panjiu serve --replies replies.toml                 what the model says, rule by rule
  panjiu serve --paced http://127.0.0.1:9000/v1       a real server's words, the rack's timing
  panjiu serve --engine http://10.0.0.1:8000 --engine http://10.0.0.2:8000
                                                      the scheduler before two vLLM servers
  panjiu serve --tool-steps 20 --max-tool-steps 100   agents that work longer before they answer

then, from another terminal:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{
    "model": "qwen3-235b-a22b", "stream": true, "max_tokens": 32, "session_id": "agent-1",
    "messages": [{"role": "user", "content": "Plan the day."}]}'

  client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")
  client = anthropic.Anthropic(base_url="http://127.0.0.1:8000", api_key="-")
"""


def add_serve_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "serve",
        help="the emulated rack, or real engines, behind an OpenAI-compatible endpoint",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("the endpoint")
    group.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    group.add_argument(
        "--port", type=natural_int, default=8000, help="0 picks a free one (default: %(default)s)"
    )
    group.add_argument(
        "--speed",
        type=positive_float,
        default=1.0,
        metavar="X",
        help="emulated seconds per second (default: %(default)s)",
    )
    add_service_options(group)
    add_endpoint_options(group)
    add_watch_options(group)
    add_engine_options(parser)
    add_rack_options(parser)
    add_speaker_options(parser)
    parser.set_defaults(run=run_serve)


def run_serve(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    if names_engines(args):
        policy_entry(args.policy)
        engine_sources(args)
        return _run(args, serve_engines, backend_options=loop_options())
    machine = emulated_machine(args)
    check_speaker(args)
    tenants = tenant_keys(args)
    serve = partial(_serve, machine, tenants, dashboard_terms(args, tenants))
    return _run(args, serve)


Serve: TypeAlias = Callable[[argparse.Namespace, socket.socket, GracefulStop], Awaitable[None]]


def _run(
    args: argparse.Namespace, serve: Serve, *, backend_options: dict[str, object] | None = None
) -> int:
    """Serve on the port asked for until told to stop; return the exit code."""
    raise_open_files()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    stop = GracefulStop(args.drain_s, console.print)

    async def main(listener: socket.socket) -> None:
        with told_plainly():
            async with stop.listening():
                await serve(args, listener, stop)

    with listen(args.host, args.port) as listener, suppress(KeyboardInterrupt):
        anyio.run(main, listener, backend_options=backend_options)
    return 0


async def _serve(
    machine: EmulatedMachine,
    tenants: TenantKeys | None,
    dashboard: DashboardTerms | None,
    args: argparse.Namespace,
    listener: socket.socket,
    stop: GracefulStop,
) -> None:
    band = Band(args.band)
    deployment = machine.deployment(band, args.block_size)
    console = Console(stderr=True)
    async with (
        opened_journal(args, console.print) as journal,
        chosen_speaker(args) as speaker,
        anyio.create_task_group() as tasks,
    ):
        options = ServiceOptions(
            band,
            args.policy,
            machine.limits,
            endpoint=endpoint_limits(args),
            tenants=tenants,
            dashboard=dashboard,
            journal=journal,
        )
        service = EmulatedService(deployment, options, Clock(args.speed), speaker, epoch_s=epoch_s)
        tasks.start_soon(service.rack.run)
        url = "http://{}:{}".format(*listener.getsockname()[:2])
        console.print(
            f"{machine.model.title} on {machine.rack.title}, band {band}, policy {args.policy}, "
            f"{args.speed:g}x real time\n{deployment.describe()}\n"
            f"listening on {url}/v1  (Ctrl-C stops)" + dashboard_line(dashboard, tenants, url),
            highlight=False,
            soft_wrap=True,
        )
        config = endpoint_config(traced_app(args, service.app))
        await stop.serve(config, service, listener)
        tasks.cancel_scope.cancel()
