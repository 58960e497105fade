"""What tools and sessions tell the scheduler while they work."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agent_runtime.errors import ConfigError
from agent_runtime.sdk import Agent, Decision, Runtime, RuntimeOptions, ToolContext, TurnEnded, tool
from tests.sdk_places import caller, in_virtual_time


class Sight:
    """Looks at the sessions of a server through its API."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def look(self, context: ToolContext) -> dict[str, Any]:
        http = context.session.connection.calls.client._http
        card: dict[str, Any] = (await http.get(f"sessions/{context.session.session_id}")).json()
        self.seen.append(card)
        return card


def test_how_long_tools_take_reaches_the_scheduler_before_and_while_they_run() -> None:
    sight = Sight()

    @tool(expected_s=50)
    async def long_job(context: ToolContext, seconds: float = 0.0) -> str:
        """Take long."""
        await anyio.sleep(20)
        assert (await sight.look(context))["gap"]["expected_s"] == 50
        await context.progress(0.1)
        at_s = (await sight.look(context))["gap"]["expected_s"]
        assert at_s == pytest.approx(200, rel=0.01)
        await context.expect(21)
        assert (await sight.look(context))["gap"]["expected_s"] == 21
        return "done"

    async def program(runtime: Runtime) -> Any:
        async with runtime.session(Agent("a", tools=[long_job]), session_id="a") as session:
            return await session.run("begin")

    result = in_virtual_time(program, caller(30, 1))
    told = [message["content"] for message in result.messages if message["role"] == "tool"]
    assert told
    assert set(told) == {"done"}
    assert sight.seen[0]["gap"]["tools"] == ["long_job"]


def test_a_child_s_parent_its_priority_and_a_tool_s_context_are_known() -> None:
    cards: list[dict[str, Any]] = []

    @tool
    async def delegate(context: ToolContext) -> str:
        """Delegate."""
        async with context.session.child(Agent("child"), priority=-3) as child:
            await child.run("help")
            http = child.connection.calls.client._http
            cards.append((await http.get(f"sessions/{child.session_id}")).json())
            cards.append((await http.get(f"sessions/{context.session.session_id}")).json())
        return "done"

    async def program(runtime: Runtime) -> Any:
        lead = Agent("lead", tools=[delegate])
        async with runtime.session(lead, session_id="lead", deadline_s=900) as session:
            return await session.run("begin")

    in_virtual_time(program, caller(6, 1))
    assert cards[0]["parent_session_id"] == "lead"
    assert cards[0]["id"] == "lead/1.1.1.1"
    assert cards[1]["state"] == "tool_gap"
    assert cards[1]["gap"]["cause"] == "children"


def test_what_the_scheduler_decided_is_told_with_each_turn() -> None:
    decisions: list[Decision | None] = []

    def note(_: Any, event: Any) -> None:
        if isinstance(event, TurnEnded):
            decisions.append(event.decision)

    async def program(runtime: Runtime) -> Any:
        async with runtime.session(Agent("a")) as session:
            await session.run("begin")
            async for _ in session.stream("go on"):
                pass

    in_virtual_time(program, options=RuntimeOptions(hooks=[note]))
    first, second = decisions
    assert first is not None
    assert second is not None
    assert (first.reason, second.reason) == ("new", "home")
    assert first.replica == second.replica


@pytest.mark.parametrize(
    ("header", "decision"),
    [
        (
            "replica=3; waited_ms=1500; expected_cached_tokens=64; reason=moved",
            Decision(3, 1.5, 64, "moved"),
        ),
        ("replica=3", None),
        ("replica=x; waited_ms=1; expected_cached_tokens=1; reason=new", None),
        ("", None),
    ],
)
def test_a_decision_is_read_or_not_there(header: str, decision: Decision | None) -> None:
    assert Decision.of({"x-panjiu-decision": header}) == decision
    assert Decision.of({}) is None


def test_terms_that_can_t_be_are_errors_before_anything_runs() -> None:
    async def program(runtime: Runtime) -> None:
        for terms, says in (
            ({"priority": 65}, "priority must be from -64 to 64, not 65"),
            ({"deadline_s": 0}, "deadline_s must be above 0, not 0"),
            ({"deadline_s": float("nan")}, "deadline_s must be above 0, not nan"),
        ):
            with pytest.raises(ConfigError, match=says):
                async with runtime.session(Agent("a"), **terms):
                    pass

    in_virtual_time(program)
    with pytest.raises(ConfigError, match="retries must be 0 or more"):
        tool(retries=-1)(lambda: None)


def test_agents_and_tools_that_can_t_be() -> None:
    with pytest.raises(ConfigError, match="options can't have 'messages'"):
        Agent("a", options={"messages": []})
    with pytest.raises(ConfigError, match=r"options are not JSON: .*object"):
        Agent("a", options={"stop": object()})

    class Strange:
        pass

    def of_a_local_type(thing: Strange) -> None:
        pass

    with pytest.raises(ConfigError, match="'Strange' is not defined; define it at the module's"):
        tool(of_a_local_type)

    def without_schema(thing: Any) -> None:
        pass

    without_schema.__annotations__["thing"] = Strange
    with pytest.raises(ConfigError, match="without_schema: a parameter has no JSON schema"):
        tool(without_schema)
