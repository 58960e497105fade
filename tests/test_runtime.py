"""Turns through the runtime and the emulated rack, on a clock that runs a thousand times faster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from agent_runtime.backends.emulator import EmulatedRack, emulated_rack
from agent_runtime.clock import Clock
from agent_runtime.errors import ContextTooLongError
from agent_runtime.runtime import Runtime
from agent_runtime.turns import PlacementReason, TurnRequest
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.ids import SessionId, TurnId
from scheduler.policies import make_policy
from scheduler.rack import ReplicaFleet
from tests.engines import deployment
from tests.racks import policy_setup

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def running_rack() -> AsyncIterator[tuple[Runtime, EmulatedRack, ClusterScheduler]]:
    plan = deployment("qwen3-8b", num_replicas=2)
    clock = Clock(speed=1000.0)
    scheduler = ClusterScheduler(
        ReplicaFleet(2, plan.kv_tokens), make_policy("panjiu", policy_setup(2, plan.kv_tokens))
    )
    async with emulated_rack(plan, Band.BASE, clock, EngineLimits()) as rack:
        yield (
            Runtime(
                scheduler,
                rack,
                clock,
                block_size_tokens=64,
            ),
            rack,
            scheduler,
        )


def turn(
    name: str, session: str, prompt: int = 1000, output: int = 50, first: int = 0
) -> TurnRequest:
    hashes = list(range(first, first + (prompt + output) // 64))
    return TurnRequest(TurnId(name), SessionId(session), prompt, output, hashes)


async def read(runtime: Runtime, request: TurnRequest) -> tuple[int, int]:
    """Run a turn; return its output and its cached prompt tokens."""
    num_tokens = num_cached = 0
    async with runtime.open_turn(request) as progress:
        async for step in progress:
            assert step.num_new_tokens >= 1
            num_tokens += step.num_new_tokens
            num_cached = step.num_cached_tokens
    return num_tokens, num_cached


async def test_a_turn_tells_where_it_was_placed_and_why() -> None:
    async with running_rack() as (runtime, _, _scheduler):
        async with runtime.open_turn(turn("t1", "a")) as first:
            assert first.placement.reason is PlacementReason.NEW
            assert first.placement.num_expected_cached_tokens == 0
            async for _step in first:
                pass
        view = runtime.session_view(SessionId("a"))
        assert view is not None
        async with runtime.open_turn(turn("t2", "a", prompt=1100)) as second:
            assert second.placement.reason is PlacementReason.HOME
            assert second.placement.replica_id == view.home
            assert second.placement.num_expected_cached_tokens > 900
            assert 0 <= second.placement.waited_s <= runtime.now_s()
            async for _step in second:
                pass


async def test_a_turn_streams_all_its_tokens_and_the_next_one_hits_its_prefix() -> None:
    async with running_rack() as (runtime, rack, scheduler):
        assert await read(runtime, turn("t1", "a")) == (50, 0)
        assert await read(runtime, turn("t2", "a", prompt=1200)) == (50, 1049 // 64 * 64)
        assert rack.kv_active_ratio() == 0
        rack.check_invariants()
        scheduler.check_invariants()


async def test_many_sessions_at_once_all_finish() -> None:
    done = []

    async def session(number: int, runtime: Runtime) -> None:
        for index in range(3):
            request = turn(f"s{number}t{index}", f"s{number}", 700 + 100 * index, 20, number << 20)
            done.append(await read(runtime, request))

    async with running_rack() as (runtime, rack, scheduler):
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(session, number, runtime)
        rack.check_invariants()
        scheduler.check_invariants()
    assert [tokens for tokens, _ in done] == [20] * 120


async def test_leaving_a_turn_early_frees_its_kv() -> None:
    async with running_rack() as (runtime, rack, scheduler):
        async with runtime.open_turn(turn("t", "a", prompt=60_000, output=50_000)) as progress:
            await anext(progress)
            assert rack.kv_active_ratio() > 0
        with anyio.fail_after(5):
            while rack.kv_active_ratio() > 0:
                await anyio.sleep(0.001)
        rack.check_invariants()
        scheduler.check_invariants()
        assert await read(runtime, turn("t2", "a")) == (50, 960)


async def test_cancelling_a_waiting_reader_frees_its_turn() -> None:
    async with running_rack() as (runtime, rack, scheduler):
        with anyio.move_on_after(0.02):
            await read(runtime, turn("t", "a", prompt=700_000, output=50_000))
        scheduler.check_invariants()
        with anyio.fail_after(5):
            while rack.kv_active_ratio() > 0:
                await anyio.sleep(0.001)
        rack.check_invariants()


async def test_a_context_longer_than_a_replica_is_refused_before_anything_runs() -> None:
    async with running_rack() as (runtime, _, scheduler):
        with pytest.raises(ContextTooLongError, match=r"maximum context length is 774\d{3} tokens"):
            await read(runtime, turn("t", "a", prompt=2_000_000))
        assert scheduler.num_sessions == 0


async def test_a_closed_session_is_forgotten() -> None:
    async with running_rack() as (runtime, _, scheduler):
        await read(runtime, turn("t", "a"))
        assert scheduler.num_sessions == 1
        runtime.close_session(SessionId("a"))
        runtime.close_session(SessionId("never seen"))
        assert scheduler.num_sessions == 0
