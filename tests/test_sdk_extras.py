"""MCP tools, spans, and the SDK without an event loop."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from agent_runtime.errors import BudgetExceededError, ConfigError
from agent_runtime.sdk import (
    Agent,
    BlockingRuntime,
    Budget,
    Emulation,
    McpTool,
    OpenTelemetrySpans,
    RunEnded,
    Runtime,
    RuntimeOptions,
    TextDelta,
    agent_tool,
    mcp_server,
    tool,
)
from agent_runtime.sdk.tools import ToolFailure
from tests.sdk_places import MODEL, caller, in_virtual_time

SERVER = str(Path(__file__).with_name("mcp_server.py"))


class Progress:
    """Stands in for a context."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    async def progress(self, share: float) -> None:
        self.shares.append(share)


def test_tools_of_an_mcp_server_answer_fail_and_say_how_far_they_are() -> None:
    async def main() -> None:
        progress = Progress()
        async with mcp_server(sys.executable, SERVER, prefix="s_", timeout_s=1.5) as tools:
            named: dict[str, McpTool] = {made.name: made for made in tools}
            assert set(named) == {"s_add", "s_fail", "s_slow", "s_stuck"}
            definition = json.loads(named["s_add"].encoded)["function"]
            assert definition["name"] == "s_add"
            assert definition["description"] == "Add two numbers."
            assert definition["parameters"]["required"] == ["a", "b"]
            assert await named["s_add"].call('{"a": 2, "b": 3}') == "5"
            with pytest.raises(ToolFailure, match="rain"):
                await named["s_fail"].call('{"reason": "rain"}')
            for wrong in ("no json", "[]"):
                with pytest.raises(ToolFailure, match="wrong arguments"):
                    await named["s_add"].call(wrong)
            with pytest.raises(ToolFailure, match="Timed out"):
                await named["s_stuck"].call("{}")
            said: Any = progress
            assert await named["s_slow"].call("{}", said) == "slow is done"
            assert progress.shares == [0.25, 0.5, 0.75]
            Agent("a", tools=tools)

    anyio.run(main)


@pytest.mark.parametrize("arguments", [{}, {"url": "http://x", "command": ("y",)}])
def test_an_mcp_server_is_a_command_or_a_url(arguments: dict[str, Any]) -> None:
    async def main() -> None:
        async with mcp_server(*arguments.get("command", ()), url=arguments.get("url")):
            pass

    with pytest.raises(ConfigError, match="one of both"):
        anyio.run(main)


def test_spans_nest_as_agents_do_and_say_what_the_scheduler_decided() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    options = RuntimeOptions(spans=OpenTelemetrySpans(provider.get_tracer("test")))

    @tool
    def breaks(why: str) -> str:
        """Break."""
        raise RuntimeError(why)

    lead = Agent("lead", tools=[agent_tool(Agent("child"), "Ask."), breaks])

    async def program(runtime: Runtime) -> Any:
        async with runtime.session(lead, session_id="lead-1") as session:
            result = await session.run("begin")
        async with runtime.session(Agent("poor"), budget=Budget(seconds=0.001)) as session:
            with pytest.raises(BudgetExceededError):
                async for _ in session.stream("begin"):
                    pass
        return result

    result = in_virtual_time(program, caller(30, 2), options=options)
    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}

    def path(span: Any) -> list[str]:
        above = [] if span.parent is None else path(by_id[span.parent.span_id])
        return [*above, span.name]

    paths = {tuple(path(span)) for span in spans}
    assert ("invoke_agent lead",) in paths
    assert ("invoke_agent lead", f"chat {MODEL}") in paths
    assert ("invoke_agent lead", "execute_tool breaks") in paths
    asked = ("invoke_agent lead", "execute_tool child", "invoke_agent child")
    assert asked in paths
    assert (*asked, f"chat {MODEL}") in paths
    (run,) = [span for span in spans if span.name == "invoke_agent lead"]
    assert run.attributes is not None
    assert run.attributes["gen_ai.usage.input_tokens"] == result.usage.prompt_tokens
    assert run.attributes["panjiu.num_turns"] == result.num_turns
    turn = next(span for span in spans if span.name == f"chat {MODEL}")
    assert turn.attributes is not None
    assert turn.attributes["panjiu.placement_reason"] == "new"
    broken = next(span for span in spans if span.name == "execute_tool breaks")
    assert broken.attributes is not None
    assert broken.attributes["error.type"] == "tool_error"
    (poor,) = [span for span in spans if span.name == "invoke_agent poor"]
    assert poor.attributes is not None
    assert poor.attributes["error.type"] == "BudgetExceededError"


class Verdict(BaseModel):
    good: bool


def test_scripts_need_no_event_loop() -> None:
    emulation = Emulation(num_replicas=2, speed=500, replies=caller(1, 1))
    with (
        BlockingRuntime.emulated(model=MODEL, emulation=emulation) as runtime,
        runtime.session(Agent("a", instructions="Be short."), session_id="s") as session,
    ):
        first = session.run("begin")
        assert first.text
        assert session.run("judge", output=Verdict).output.good in {True, False}
        mark = session.mark()
        events = list(session.stream("go on"))
        assert any(isinstance(event, TextDelta) for event in events)
        assert isinstance(events[-1], RunEnded)
        for event in session.stream("leave early"):
            if isinstance(event, TextDelta):
                break
        session.rewind(mark)
        longest = session.fork_map(["x", "y"], join=lambda drafts: max(drafts, key=len_of))
        session.adopt(longest)
        with session.fork() as fork, session.child(Agent("b")) as child:
            assert fork.run("z").text
            assert child.run("z").text
            assert (fork.session_id, child.session_id) == ("s.3", "s.4")
        assert session.compact()
        assert len(session.messages) == 2
        assert session.usage.output_tokens > 0


def len_of(result: Any) -> int:
    return len(result.text)


def test_a_blocking_session_raises_what_a_session_does() -> None:
    emulation = Emulation(num_replicas=1, speed=500)
    with (
        BlockingRuntime.emulated(model=MODEL, emulation=emulation) as runtime,
        runtime.session(Agent("a"), budget=Budget(tokens=1)) as session,
    ):
        session.run("begin")
        with pytest.raises(BudgetExceededError):
            session.run("more")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"speed": 0}, "speed must be above 0"),
        ({"band": "best"}, "band must be one of low, base, high, not 'best'"),
        ({"policy": "luck"}, "luck"),
    ],
)
def test_emulations_that_can_t_be(how: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception, match=says):
        Emulation(**how)
