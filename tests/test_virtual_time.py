"""Virtual time: exact deadlines, one order, loud errors; clients and the endpoint run in it."""

from __future__ import annotations

import asyncio  # noqa: TID251 - programs like any user's
import hashlib
import os
import random  # noqa: TID251
import subprocess
import sys
import threading  # noqa: TID251
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio._backends._asyncio as anyio_asyncio
import anyio.lowlevel
import anyio.to_thread  # noqa: TID251
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.errors import (
    BackendError,
    DeadlockError,
    LivelockError,
    OutsideTimeError,
    VirtualTimeError,
)
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from tests.engines import deployment

VIRTUAL: dict[str, Any] = {"loop_factory": VirtualTimeLoop}
MODEL, BLOCK = "qwen3-8b", 16


def run(main) -> Any:
    return anyio.run(main, backend_options=VIRTUAL)


def test_a_day_ends_exactly_when_it_should() -> None:
    async def main() -> float:
        await anyio.sleep(86_400)
        return anyio.current_time()

    assert run(main) == 86_400


@given(st.lists(st.floats(0, 100), max_size=20))
def test_wake_ups_come_in_the_order_of_their_deadlines(delays: list[float]) -> None:
    woken: list[float] = []

    async def sleeper(delay: float) -> None:
        await anyio.sleep_until(delay)
        woken.append(delay)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for delay in delays:
                tasks.start_soon(sleeper, delay)

    run(main)
    assert all(after - before > -1e-9 for before, after in pairwise(woken))


def test_equal_deadlines_are_served_first_come_first_served() -> None:
    woken = []

    async def sleeper(order: int) -> None:
        await anyio.sleep(1)
        woken.append(order)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for order in range(100):
                tasks.start_soon(sleeper, order)

    run(main)
    assert woken == list(range(100))


def test_siblings_are_cancelled_in_the_order_in_which_they_were_born() -> None:
    cancelled = []

    async def victim(order: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(order)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for order in range(50):
                tasks.start_soon(victim, order)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()

    run(main)
    assert cancelled == list(range(50))


@given(st.floats(1e-6, 5), st.floats(0, 5))
def test_deadlines_between_nanoseconds_do_not_livelock(timeout: float, offset: float) -> None:
    async def main() -> bool:
        await anyio.sleep(offset)
        with anyio.move_on_after(timeout) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught

    assert run(main)


def test_a_deadlock_is_an_error() -> None:
    with pytest.raises(DeadlockError, match="nothing can ever happen again"):
        run(anyio.Event().wait)


def test_a_livelock_is_an_error() -> None:
    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(LivelockError, match="let a loop that polls sleep"):
        run(spin)


def test_a_time_that_floats_can_not_hold_is_an_error() -> None:
    async def main() -> None:
        await anyio.sleep(1e9)  # noqa: ASYNC116 - neither is it for ever

    with pytest.raises(VirtualTimeError, match="is a sleep endless"):
        run(main)


def test_a_thread_that_wakes_the_loop_is_an_error() -> None:
    async def ticker() -> None:
        while True:
            await anyio.sleep(0.01)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=[print])
        thread.start()
        thread.join()
        await ticker()

    with pytest.raises(OutsideTimeError, match="run the work inline"):
        run(main)


@pytest.mark.parametrize("through_anyio", [True, False])
def test_jobs_for_threads_run_at_once_and_end_when_they_have_slept(through_anyio: bool) -> None:
    log: list[tuple[str, float]] = []

    def job(clock: VirtualClock, sleeps_s: float) -> str:
        clock.sleep_in_job(sleeps_s)
        log.append(("in the job", clock.reading_s))
        return "result"

    async def wait_for_job(sleeps_s: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        if through_anyio:
            result = await anyio.to_thread.run_sync(job, loop.clock, sleeps_s)  # noqa: TID251
        else:
            result = await loop.run_in_executor(None, job, loop.clock, sleeps_s)
        log.append((result, anyio.current_time()))

    async def main() -> None:
        await anyio.sleep(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_job, 5.0)
            tasks.start_soon(wait_for_job, 2.0)

    run(main)
    assert log == [("in the job", 6.0), ("in the job", 3.0), ("result", 3.0), ("result", 6.0)]


def test_a_job_s_error_comes_when_it_has_slept_and_a_cancelled_job_is_not_waited_for() -> None:
    def job(clock: VirtualClock) -> None:
        clock.sleep_in_job(5)
        raise ValueError("from the job")

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        with anyio.move_on_after(1):
            await loop.run_in_executor(None, job, loop.clock)
        left_s = anyio.current_time()
        with pytest.raises(ValueError, match="from the job"):
            await loop.run_in_executor(None, job, loop.clock)
        return left_s, anyio.current_time()

    assert run(main) == (1.0, 6.0)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_socket_is_an_error(host: str) -> None:
    async def main() -> None:
        await asyncio.open_connection(host, 80)

    with pytest.raises(OutsideTimeError, match=f"connection to {host}:80"):
        run(main)


class Bell:
    """A world that rings at given times."""

    def __init__(self, *times_s: float) -> None:
        self.times_s = list(times_s)
        self.rung = anyio.Event()
        self.log: list[tuple[str, float]] = []

    @property
    def next_event_s(self) -> float | None:
        return self.times_s[0] if self.times_s else None

    def advance(self, now_s: float) -> None:
        assert self.times_s.pop(0) <= now_s
        self.log.append(("rung", now_s))
        self.rung.set()


def test_the_world_moves_between_timers_after_those_of_the_same_instant() -> None:
    bell = Bell(0.5, 1.0, 7.0)

    async def main() -> None:
        await anyio.sleep(1)
        bell.log.append(("slept", anyio.current_time()))
        await anyio.lowlevel.checkpoint()
        bell.log.append(("at the same time", anyio.current_time()))
        await anyio.sleep(2)
        bell.rung = anyio.Event()
        await bell.rung.wait()
        bell.log.append(("heard", anyio.current_time()))
        await anyio.Event().wait()

    with pytest.raises(DeadlockError):
        anyio.run(main, backend_options={"loop_factory": lambda: VirtualTimeLoop(world=bell)})
    assert bell.log == [
        ("rung", 0.5),
        ("slept", 1.0),
        ("at the same time", 1.0),
        ("rung", 1.0),
        ("rung", 7.0),
        ("heard", 7.0),
    ]


def test_loops_that_share_a_clock_go_on_where_the_one_before_stopped() -> None:
    clock, times_s = VirtualClock(), []

    async def main() -> None:
        await anyio.sleep(2)
        times_s.append(anyio.current_time())

    for _ in range(2):
        anyio.run(main, backend_options={"loop_factory": lambda: VirtualTimeLoop(clock=clock)})
    assert times_s == [2.0, 4.0]


def test_anyio_gets_its_cancel_scopes_back() -> None:
    before = anyio_asyncio.CancelScope

    async def main() -> bool:
        return anyio_asyncio.CancelScope is before

    assert not run(main), "the hook has stopped working"
    assert anyio_asyncio.CancelScope is before


def chat_app(log: list[tuple]) -> Starlette:
    async def chat(request: Request) -> StreamingResponse:
        await request.json()

        async def body():
            await anyio.sleep(0.25)
            for token in range(8):
                yield (
                    b'data: {"id":"c","object":"chat.completion.chunk","created":0,"model":"m",'
                    b'"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
                )
                log.append(("token", token, anyio.current_time()))
                await anyio.sleep(0.02)
            yield b"data: [DONE]\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


def impatient_agents(seed: int) -> list[tuple]:
    """Fifty openai clients with seeded time-outs, then all cancelled at once; returns their log."""
    log: list[tuple] = []

    async def main() -> None:
        rng = random.Random(seed)  # noqa: S311 - a test's
        transport = StreamingAsgiTransport(chat_app(log))
        async with httpx2.AsyncClient(transport=transport, timeout=None) as http:
            client = openai.AsyncOpenAI(
                api_key="x", base_url="http://test/v1", http_client=http, max_retries=0
            )

            async def agent(number: int, patience_s: float) -> None:
                began_s = anyio.current_time()
                with anyio.move_on_after(patience_s) as scope:
                    stream = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
                    )
                    first = True
                    async for _ in stream:
                        if first:
                            log.append(("ttft", number, anyio.current_time() - began_s))
                            first = False
                log.append(("done", number, scope.cancelled_caught, anyio.current_time()))

            with anyio.move_on_after(1.3):
                async with anyio.create_task_group() as tasks:
                    for number in range(50):
                        await anyio.sleep(rng.choice([0.0, 0.05]))
                        tasks.start_soon(agent, number, rng.choice([0.3, 5]))

    run(main)
    return log


def digest(log: list[tuple]) -> str:
    return hashlib.sha256(repr(log).encode()).hexdigest()


def test_the_same_seed_gives_the_same_log_to_the_byte_in_any_process() -> None:
    first, other = impatient_agents(1), impatient_agents(2)
    assert digest(first) == digest(impatient_agents(1))
    assert first != other
    assert {round(row[2], 9) for row in first if row[0] == "ttft"} == {0.25}
    code = "from tests.test_virtual_time import *; print(digest(impatient_agents(1)))"
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == digest(first)


def test_a_client_that_was_not_entered_is_told_so() -> None:
    async def main() -> None:
        transport = StreamingAsgiTransport(chat_app([]))
        await transport.handle_async_request(httpx2.Request("GET", "http://test/"))

    with pytest.raises(BackendError, match="enter the client"):
        run(main)


def agents_on_the_rack(num_agents: int, num_turns: int) -> tuple[list[tuple], float]:
    """Agents with tools, openai's client, our endpoint and the emulated rack, in virtual time."""
    log: list[tuple] = []

    async def main() -> float:
        plan = deployment(MODEL, num_replicas=2, block_size_tokens=BLOCK)
        options = ServiceOptions(Band.BASE, "panjiu", EngineLimits())
        service = EmulatedService(
            plan, options, Clock(), SeededModel(), epoch_s=lambda: 1_700_000_000.0
        )
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(service.rack.run)
            http = await stack.enter_async_context(
                httpx2.AsyncClient(transport=StreamingAsgiTransport(service.app), timeout=None)
            )
            client = openai.AsyncOpenAI(
                api_key="-", base_url="http://rack/v1", http_client=http, max_retries=0
            )
            async with anyio.create_task_group() as agents:
                for number in range(num_agents):
                    agents.start_soon(agent, client, number)
            service.rack.check_invariants()
            tasks.cancel_scope.cancel()
            return anyio.current_time()

    async def agent(client: openai.AsyncOpenAI, number: int) -> None:
        messages: list[Any] = [{"role": "user", "content": f"task {number} " + "word " * 2000}]
        for _ in range(num_turns):
            began_s = anyio.current_time()
            reply = await client.chat.completions.create(
                model=MODEL,
                messages=messages,
                max_tokens=50,
                extra_headers={"X-Session-ID": f"agent-{number}"},
            )
            usage = reply.usage
            assert usage is not None
            assert usage.prompt_tokens_details is not None
            cached = usage.prompt_tokens_details.cached_tokens
            log.append((number, anyio.current_time() - began_s, cached, usage.prompt_tokens))
            messages += [
                {"role": "assistant", "content": reply.choices[0].message.content},
                {"role": "user", "content": "tool said " + "more " * 100},
            ]
            await anyio.sleep(30.0)  # the tool

    return log, run(main)


def test_agents_talk_to_the_emulated_rack_for_minutes_in_no_time() -> None:
    log, ended_s = agents_on_the_rack(num_agents=8, num_turns=5)
    assert len(log) == 8 * 5
    assert 150 < ended_s < 200
    later = [row for position, row in enumerate(log) if position >= 8]
    assert all(cached > 0.8 * prompt for _, _, cached, prompt in later), "each finds its KV"
    assert (log, ended_s) == agents_on_the_rack(num_agents=8, num_turns=5)
