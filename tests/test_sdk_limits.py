"""Budgets, tool failures, letters and hooks."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agent_runtime.errors import BudgetExceededError, ConfigError
from agent_runtime.sdk import (
    Agent,
    Budget,
    Prices,
    RunEnded,
    RunStarted,
    Runtime,
    RuntimeOptions,
    ToolCalled,
    ToolReturned,
    TurnEnded,
    TurnStarted,
    Usage,
    agent_tool,
    tool,
)
from agent_runtime.sdk.budget import Spending
from agent_runtime.sdk.mailboxes import Mailbox, PostOffice
from tests.sdk_places import caller, in_virtual_time

PRICES = Prices(prompt=1.0, cached=0.1, output=10.0)


@tool
async def wait_long() -> str:
    """Wait."""
    await anyio.sleep(100)
    return "done"


def test_a_session_stops_at_its_tokens_and_keeps_what_it_was_told_before() -> None:
    async def program(runtime: Runtime) -> Any:
        async with runtime.session(Agent("a"), budget=Budget(tokens=100)) as session:
            first = await session.run("begin " * 80)
            assert session.usage.total_tokens >= 100
            with pytest.raises(BudgetExceededError, match="of 100 tokens"):
                await session.run("more")
            return first, session.messages

    first, messages = in_virtual_time(program)
    assert messages == first.messages


def test_seconds_end_a_tool_and_a_turn_that_are_under_way() -> None:
    async def program(runtime: Runtime) -> Any:
        agent = Agent("a", tools=[wait_long])
        began_s = anyio.current_time()
        async with runtime.session(agent, budget=Budget(seconds=30)) as session:
            with pytest.raises(BudgetExceededError, match="all of its seconds"):
                await session.run("begin")
            assert anyio.current_time() - began_s == pytest.approx(30)
        async with runtime.session(Agent("b"), budget=Budget(seconds=0.01)) as session:
            with pytest.raises(BudgetExceededError, match="all of its seconds"):
                async for _ in session.stream("begin"):
                    pass
            assert session.messages == ()

    in_virtual_time(program, caller(30, 1))


def test_children_and_forks_spend_what_their_parent_may() -> None:
    async def program(runtime: Runtime) -> Any:
        child = Agent("child", instructions="long " * 500)
        agent = Agent("a", tools=[agent_tool(child, "Ask.")])
        async with runtime.session(agent, budget=Budget(tokens=600)) as session:
            with pytest.raises(BudgetExceededError, match=r"of 600 tokens"):
                await session.run("begin")
            return session.usage

    assert in_virtual_time(program, caller(30, 1)).total_tokens >= 600


def test_money_is_counted_by_what_was_found_in_the_cache() -> None:
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert PRICES.cost(usage) == pytest.approx(0.6 + 0.04 + 1.0)
    spending = Spending(Budget(cost=1.5, prices=PRICES), "s", 0.0)
    spending.check()
    spending.add(usage)
    with pytest.raises(BudgetExceededError, match=r"session s has spent 1\.64 of 1\.5"):
        spending.check()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"tokens": 0}, "tokens must be above 0"),
        ({"seconds": -1}, "seconds must be above 0"),
        ({"cost": 1.0}, "cost needs prices"),
    ],
)
def test_budgets_that_can_t_be(limits: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Budget(**limits)


def test_a_tool_is_tried_again_before_the_model_is_told() -> None:
    tries: list[str] = []

    @tool(retries=2, timeout_s=1)
    async def shaky(how: str) -> str:
        """Fail at first."""
        tries.append(how)
        if len(tries) == 1:
            raise OSError("no route")
        if len(tries) == 2:
            await anyio.sleep_forever()
        return "worked"

    async def call() -> str:
        return await shaky.call('{"how": "so"}')

    assert anyio.run(call) == "worked"
    assert tries == ["so"] * 3


def test_letters_wait_for_room_and_go_to_one_reader_each() -> None:
    async def program(runtime: Runtime) -> Any:
        got: list[tuple[str, Any]] = []
        sent_s: list[float] = []

        async def read(name: str, number: int) -> None:
            async with runtime.session(Agent("critic"), session_id=name) as session:
                for _ in range(number):
                    letter = await session.receive()
                    got.append((name, letter.content))
                    letter.answer(letter.content * 2)
                    await anyio.sleep(1)

        async with runtime.session(Agent("writer"), session_id="w") as writer:
            async with anyio.create_task_group() as tasks:
                for number in range(4):
                    await writer.send("critic", number) if number < 2 else tasks.start_soon(
                        writer.send, "critic", number
                    )
                    sent_s.append(anyio.current_time())
                assert len(runtime.mailbox("critic")) == 2
                await anyio.sleep(5)
                assert len(runtime.mailbox("critic")) == 2, "the others wait"
                tasks.start_soon(read, "c1", 2)
                tasks.start_soon(read, "c2", 2)
            return got

    got = in_virtual_time(program, options=RuntimeOptions(mailbox_capacity=2))
    assert sorted(content for _, content in got) == [0, 1, 2, 3]
    assert {name for name, _ in got} == {"c1", "c2"}


def test_answers_are_gathered_in_the_order_of_the_names_or_not_in_time() -> None:
    async def program(runtime: Runtime) -> Any:
        async def serve(name: str, after_s: float) -> None:
            async for letter in runtime.mailbox(name):
                await anyio.sleep(after_s)
                letter.answer(f"{name} says {letter.content} to {letter.sender}")

        async with (
            anyio.create_task_group() as tasks,
            runtime.session(Agent("lead"), session_id="lead") as lead,
        ):
            tasks.start_soon(serve, "slow", 9)
            tasks.start_soon(serve, "fast", 1)
            answers = await lead.gather(["slow", "fast"], "hello")
            with pytest.raises(TimeoutError):
                await lead.gather(["slow", "fast"], "hurry", timeout_s=5)
            await lead.broadcast(["slow", "fast"], "bye")
            tasks.cancel_scope.cancel()
            return answers

    assert in_virtual_time(program) == ["slow says hello to lead", "fast says hello to lead"]


def test_hooks_see_everything_in_order_and_may_be_of_either_kind() -> None:
    seen: list[Any] = []

    async def later(session: Any, event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append((session.session_id, event))

    def at_once(_: Any, event: Any) -> None:
        seen.append(event)

    @tool
    def add(a: float, b: float) -> float:
        """Add."""
        return a + b

    async def program(runtime: Runtime) -> Any:
        async with runtime.session(Agent("a", tools=[add]), session_id="s") as session:
            return await session.run("begin")

    hooks = RuntimeOptions(hooks=[at_once, later])
    result = in_virtual_time(program, caller(30, 1), options=hooks)
    events = seen[::2]
    assert seen[1::2] == [("s", event) for event in events]
    assert isinstance(events[0], RunStarted)
    assert events[-1] == RunEnded(result)
    kinds = [type(event) for event in events[1:-1]]
    turn, call = [TurnStarted, TurnEnded], [ToolCalled, ToolReturned]
    num_calls = kinds.count(ToolCalled)
    assert num_calls >= 1
    assert kinds == [*(turn + call) * num_calls, *turn]


def test_readers_learn_that_the_runtime_is_left() -> None:
    async def main() -> list[str]:
        ends: list[str] = []

        async def read(mailbox: Mailbox) -> None:
            async for letter in mailbox:
                ends.append(letter.content)  # noqa: PERF401 - as they come
            ends.append("end")

        async with anyio.create_task_group() as tasks:
            with PostOffice() as post:
                tasks.start_soon(read, post.mailbox("a"))
                await post.send("me", "a", "letter")
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
        return ends

    assert anyio.run(main) == ["letter", "end"]
