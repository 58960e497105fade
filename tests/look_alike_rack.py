"""Look-alikes in this process, on loopback ports, a thousand times faster."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import anyio
import httpx2
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from agent_runtime.cli.rack_server import EndpointServer, listen
from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.look_alikes.kv_event_publisher import kv_event_publishers
from agent_runtime.look_alikes.look_alikes import AppsByPort, LookAlikeOptions, LookAlikes
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from tests.engines import deployment

BLOCK = 16
MODEL = "qwen3-8b"


@dataclass(frozen=True)
class ServedLookAlikes:
    look_alikes: LookAlikes
    urls: list[str]
    kv_ports: list[tuple[int, int]]  # events, replays

    async def wait_until_idle(self) -> None:
        with anyio.fail_after(10):
            while self.look_alikes.rack.kv_active_ratio() > 0:
                await anyio.sleep(0.001)
        self.look_alikes.rack.check_invariants()

    async def metrics(self, number: int) -> dict[str, float]:
        """What a replica's page says, as name{label=value,...} without engine and model."""
        async with httpx2.AsyncClient() as http:
            page = await http.get(f"{self.urls[number]}/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            _key(sample.name, sample.labels): sample.value
            for family in text_string_to_metric_families(page.text)
            for sample in family.samples
        }


def _key(name: str, labels: dict[str, str]) -> str:
    if name == "vllm:cache_config_info":
        return name
    rest = {key: value for key, value in labels.items() if key not in {"engine", "model_name"}}
    own = ",".join(f"{key}={value}" for key, value in rest.items())
    return f"{name}{{{own}}}" if own else name


@asynccontextmanager
async def served_look_alikes(
    *, speed: float = 1000.0, kv_blocks: int | None = None, kv_events: bool = False
) -> AsyncIterator[ServedLookAlikes]:
    plan = deployment(MODEL, num_replicas=2, block_size_tokens=BLOCK)
    if kv_blocks is not None:
        plan = replace(plan, kv_blocks=kv_blocks)
    with ExitStack() as stack:
        listeners = [stack.enter_context(listen("127.0.0.1", 0)) for _ in range(2)]
        kv_ports = _free_ports() if kv_events else []
        publishers = []
        if kv_events:
            publishers = stack.enter_context(kv_event_publishers("127.0.0.1", kv_ports, "kv"))
        look_alikes = LookAlikes(
            plan,
            LookAlikeOptions(Band.BASE, EngineLimits(), EndpointLimits(1 << 20, 100)),
            Clock(speed),
            SeededModel(),
            publishers=publishers,
            epoch_s=lambda: 1_700_000_000.0,
        )
        ports = [listener.getsockname()[1] for listener in listeners]
        app = AppsByPort(dict(zip(ports, look_alikes.apps, strict=True)))
        config = uvicorn.Config(
            app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, ws="none"
        )
        server = EndpointServer(config, look_alikes.rack.stop)
        async with anyio.create_task_group() as rack_tasks:
            rack_tasks.start_soon(look_alikes.rack.run)
            for publisher in publishers:
                rack_tasks.start_soon(publisher.answer_replays)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, listeners)
                urls = [f"http://127.0.0.1:{port}" for port in ports]
                yield ServedLookAlikes(look_alikes, urls, kv_ports)
                server.should_exit = True
            rack_tasks.cancel_scope.cancel()


def _free_ports() -> list[tuple[int, int]]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        first, second, third, fourth = (each.getsockname()[1] for each in taken)
    return [(first, second), (third, fourth)]
