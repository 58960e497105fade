"""A run that is cancelled whenever the loop comes round leaves nothing behind."""

from __future__ import annotations

import asyncio  # noqa: TID251 - its iterations are counted
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from agent_runtime.sdk import Agent, Runtime, Session, agent_tool, tool
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from tests.sdk_places import caller, in_virtual_time


@tool(expected_s=5, timeout_s=30)
async def look_up(word: str) -> str:
    """Look a word up."""
    await anyio.sleep(2)
    return word


CHILD = Agent("child", instructions="Be short.")
AGENT = Agent(
    "a", instructions="rules " * 200, tools=[look_up, agent_tool(CHILD, "Ask the child.")]
)


class CountingLoop(VirtualTimeLoop):
    """Calls something in its ``countdown``-th iteration from now."""

    countdown = 0
    call: Callable[[], None] | None = None

    def _run_once(self) -> None:
        if self.call is not None:
            self.countdown -= 1
            if self.countdown == 0:
                call, self.call = self.call, None
                call()
        super()._run_once()  # type: ignore[misc] # asyncio's own


async def whole(session: Session) -> None:
    await session.run("begin")


async def streamed(session: Session) -> None:
    async for _ in session.stream("begin"):
        pass


async def forked(session: Session) -> None:
    await session.fork_map(["one", "two"])


async def summed_up(session: Session) -> None:
    await session.compact()


@pytest.mark.parametrize("work", [whole, streamed, forked, summed_up])
def test_whenever_it_is(work: Callable[[Session], Awaitable[None]]) -> None:
    async def program(runtime: Runtime) -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        num_cancelled, number = 0, 1
        while True:
            async with runtime.session(AGENT, session_id=f"s{number}") as session:
                await session.run("first")
                before = session.messages
                with anyio.CancelScope() as scope:
                    loop.countdown, loop.call = number, scope.cancel
                    await work(session)
                loop.call = None
                if not scope.cancelled_caught:
                    return num_cancelled
                assert session.messages == before
                await session.run("again")
            num_cancelled += 1
            number += 1 + number // 12

    num_cancelled: Any = in_virtual_time(program, caller(6, 2), loop_class=CountingLoop)
    assert num_cancelled > 5
