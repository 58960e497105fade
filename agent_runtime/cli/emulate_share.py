"""One process of ``panjiu emulate``: serves its share of the replicas until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection

import anyio
import uvicorn
from rich.console import Console

from agent_runtime.cli.emulated_model_options import emulated_model
from agent_runtime.cli.open_files import raise_open_files
from agent_runtime.cli.rack_options import emulated_machine
from agent_runtime.cli.rack_server import (
    VLLM_KEEP_ALIVE_S,
    EndpointServer,
    endpoint_config,
    listen,
)
from agent_runtime.clock import Clock, epoch_s
from agent_runtime.garbage import collect_garbage_rarely
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.look_alikes.kv_event_publisher import KvEventPublisher, kv_event_publishers
from agent_runtime.look_alikes.lateness import LatenessSummary, watch_lateness
from agent_runtime.look_alikes.look_alikes import AppsByPort, LookAlikeOptions, LookAlikes
from hw_model.claim import Band
from hw_model.deployment import Deployment

GRACE_S = 2


@dataclass(frozen=True, slots=True)
class EmulatedShare:
    """What one process serves.

    Attributes:
        args: Of the command.
        deployment: Its replicas.
        first: The number of the first of them in the rack.
        num_in_rack: Replicas in all.
    """

    args: argparse.Namespace
    deployment: Deployment
    first: int
    num_in_rack: int

    def run(self, parent: Connection) -> None:
        """Serve; tell the parent the ports when they are open, and the lateness at the end.

        Raises:
            ConfigError: A port is taken.
        """
        raise_open_files()
        collect_garbage_rarely()
        options = {"use_uvloop": find_spec("uvloop") is not None}
        summary = anyio.run(self._serve, parent, backend_options=options)
        parent.send(summary)

    async def _serve(self, parent: Connection) -> LatenessSummary:
        args = self.args
        with ExitStack() as stack:
            listeners = [stack.enter_context(listener) for listener in self._listeners()]
            publishers = stack.enter_context(self._publishers())
            look_alikes = LookAlikes(
                self.deployment,
                LookAlikeOptions(Band(args.band), emulated_machine(args).limits, EndpointLimits()),
                Clock(args.speed),
                emulated_model(args),
                publishers=publishers,
                epoch_s=epoch_s,
            )
            ports = [listener.getsockname()[1] for listener in listeners]
            app = AppsByPort(dict(zip(ports, look_alikes.apps, strict=True)))
            server = EndpointServer(
                endpoint_config(app, GRACE_S, keep_alive_s=VLLM_KEEP_ALIVE_S), look_alikes.rack.stop
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look_alikes.rack.run)
                tasks.start_soon(watch_lateness, look_alikes.lateness, self._warn)
                for publisher in publishers:
                    tasks.start_soon(publisher.answer_replays)
                await tasks.start(_stop_on_signal, server)
                tasks.start_soon(_stop_with_parent, parent, server)
                parent.send(ports)
                await server.serve(sockets=listeners)
                tasks.cancel_scope.cancel()
        return look_alikes.lateness()

    def _listeners(self) -> Iterator[socket.socket]:
        base = self.args.base_port
        for number in range(self.first, self.first + self.deployment.num_replicas):
            yield listen(self.args.host, base and base + number, port_option="--base-port")

    @contextmanager
    def _publishers(self) -> Iterator[list[KvEventPublisher]]:
        args = self.args
        if args.kv_events_base_port is None:
            yield []
            return
        numbers = range(self.first, self.first + self.deployment.num_replicas)
        ports = [(args.kv_events_base_port + n, args.kv_replay_base_port + n) for n in numbers]
        with kv_event_publishers(args.host, ports, args.kv_events_topic) as publishers:
            yield publishers

    def _warn(self, warning: str) -> None:
        last = self.first + self.deployment.num_replicas - 1
        whose = "" if last + 1 - self.first == self.num_in_rack else f"[{self.first} to {last}] "
        Console(stderr=True, highlight=False, soft_wrap=True).print(whose + warning, markup=False)


async def _stop_on_signal(
    server: uvicorn.Server,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            server.should_exit = True


async def _stop_with_parent(parent: Connection, server: uvicorn.Server) -> None:
    """Stop when the parent is gone: it never sends anything, so there is then an end to read."""
    await anyio.wait_readable(parent.fileno())
    server.should_exit = True
