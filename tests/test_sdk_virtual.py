"""``run_virtual``: a program on a rack of its own, in time that jumps."""

from __future__ import annotations

import gc

import anyio
import pytest

from agent_runtime.errors import DeadlockError
from agent_runtime.sdk import Agent, Emulation, Runtime, run_virtual


async def hour(name: str) -> tuple[float, str]:
    async with (
        Runtime.emulated(model="qwen3-8b", emulation=Emulation(num_replicas=1)) as runtime,
        runtime.session(Agent(name)) as session,
    ):
        await anyio.sleep(3600)
        result = await session.run("begin")
        return anyio.current_time(), result.text


def test_an_hour_passes_at_once_and_the_same_way_twice() -> None:
    before = gc.get_threshold()
    first, second = run_virtual(hour, "a"), run_virtual(hour, "a")
    assert 3600 < first[0] < 3700
    assert first[0] == second[0]
    assert gc.get_threshold() == before


def test_what_can_never_happen_is_said() -> None:
    async def waits() -> None:
        await anyio.Event().wait()

    with pytest.raises(DeadlockError, match="waits in"):
        run_virtual(waits)
