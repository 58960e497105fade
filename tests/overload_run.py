"""An emulated rack that is asked for several times what it can do, in virtual time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import numpy as np

from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from tests.engines import deployment

MODEL = "qwen3-32b"
PROMPT_WORDS = 9_000
NUM_TURNS = 3
OUTPUT_TOKENS = 60
REFUSED = 429


@dataclass(frozen=True)
class Phase:
    """So many sessions begin a second, for so long."""

    sessions_per_s: float
    seconds: float


@dataclass
class Overload:
    """What came of it; times in virtual seconds.

    Attributes:
        ttft_s: ``(when it was asked, how long it took)`` of turns that were let in.
        refused: ``(when it was asked, Retry-After)`` of those refused.
        came_back: ``(attempt, whether it was let in)`` of sessions that came back when told.
        num_waiting: Sampled every second.
        num_ended: Sessions with all turns answered.
        num_gone: Sessions that were refused and did not come back.
    """

    ttft_s: list[tuple[float, float]] = field(default_factory=list)
    refused: list[tuple[float, float]] = field(default_factory=list)
    came_back: list[tuple[int, bool]] = field(default_factory=list)
    num_waiting: list[int] = field(default_factory=list)
    num_ended: int = 0
    num_gone: int = 0


def overload(
    phases: Sequence[Phase], *, max_wait_s: float, seed: int, come_back: float = 1.0
) -> Overload:
    """Have sessions begin phase after phase, then let all end.

    Args:
        phases: How many begin, and for how long.
        max_wait_s: See ``WaitingLine``.
        seed: Of when they begin, and of who comes back.
        come_back: The share of refused sessions that come back when told; others never do.
    """
    told = Overload()
    clock = VirtualClock()
    options = ServiceOptions(
        Band.BASE,
        "panjiu",
        EngineLimits(),
        endpoint=EndpointLimits(max_wait_s=max_wait_s, max_sessions=100_000),
    )
    plan = deployment(MODEL, num_replicas=1, block_size_tokens=16)
    clock_of_rack = Clock(origin_s=0.0)
    service = EmulatedService(plan, options, clock_of_rack, SeededModel(), epoch_s=lambda: 0.0)
    rng = np.random.default_rng(seed)

    async def main() -> None:
        transport = StreamingAsgiTransport(service.app)
        async with (
            httpx2.AsyncClient(transport=transport, base_url="http://rack", timeout=None) as http,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_watch, service, told)
            async with anyio.create_task_group() as sessions:
                number = 0
                until_s = anyio.current_time()
                for phase in phases:
                    until_s += phase.seconds
                    while anyio.current_time() < until_s:
                        is_patient = bool(rng.random() < come_back)
                        sessions.start_soon(_session, http, number, is_patient, told)
                        number += 1
                        await anyio.sleep(float(rng.exponential(1.0 / phase.sessions_per_s)))
            tasks.cancel_scope.cancel()
        assert service.scheduler.num_held_turns == 0
        assert service.rack.kv_active_ratio() == 0.0
        service.scheduler.check_invariants()

    anyio.run(
        main,
        backend_options={"loop_factory": lambda: VirtualTimeLoop(clock=clock, world=service.rack)},
    )
    return told


async def _watch(service: EmulatedService, told: Overload) -> None:
    while True:
        told.num_waiting.append(service.scheduler.num_held_turns)
        await anyio.sleep(1.0)


async def _session(http: httpx2.AsyncClient, number: int, is_patient: bool, told: Overload) -> None:
    words = " ".join(f"w{number}x{index}" for index in range(PROMPT_WORDS // 4))
    messages: list[dict[str, Any]] = [{"role": "user", "content": words}]
    for turn in range(NUM_TURNS):
        attempt = 0
        while (wait_s := await _asked(http, number, messages, told)) is not None:
            assert turn == 0, "a session under way was turned away"
            if attempt:
                told.came_back.append((attempt, False))
            attempt += 1
            if not is_patient:
                told.num_gone += 1
                return
            await anyio.sleep(wait_s)
        if attempt:
            told.came_back.append((attempt, True))
        messages += [
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": "go on"},
        ]
        await anyio.sleep(0.5)
    told.num_ended += 1


async def _asked(
    http: httpx2.AsyncClient, number: int, messages: list[dict[str, Any]], told: Overload
) -> float | None:
    """Ask for a turn; return when to come back if it is refused."""
    body = {
        "messages": messages,
        "max_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
        "stream": True,
        "session_id": f"s{number}",
    }
    sent_s = anyio.current_time()
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code == REFUSED:
            wait_s = float(answer.headers["retry-after"])
            told.refused.append((sent_s, wait_s))
            return wait_s
        assert answer.status_code == 200, await answer.aread()
        first_s = None
        async for line in answer.aiter_lines():
            if first_s is None and '"content"' in line:
                first_s = anyio.current_time()
        assert first_s is not None
        told.ttft_s.append((sent_s, first_s - sent_s))
    return None
