"""The agent SDK against our endpoint in virtual time, and against servers that behave badly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime.emulated_model.reply_limits import ReplyLength
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_model.tool_use import ToolUse
from agent_runtime.emulated_service import EmulatedService
from agent_runtime.errors import (
    ConfigError,
    ModelCallError,
    OutputError,
    SessionBusyError,
    TurnLimitError,
)
from agent_runtime.sdk import (
    Agent,
    RunEnded,
    Runtime,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnEnded,
    Usage,
    tool,
)
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from tests.sdk_places import caller, on_the_rack
from tests.served_rack import served_rack

MODEL = "qwen3-8b"


@tool
async def look_up(word: str, at_most: Annotated[int, Field(ge=1, le=9)] = 3) -> list[str]:
    """Look a word up."""
    await anyio.sleep(2)
    return [word] * at_most


@tool
def add(a: float, b: float) -> float:
    """Add two numbers, blocking."""
    return a + b


@tool(name="slow", timeout_s=1.5)
async def never_ends() -> None:
    """Take too long."""
    await anyio.sleep_forever()


@tool
async def breaks(reason: str) -> str:
    """Fail."""
    raise RuntimeError(f"it broke: {reason}")


class Verdict(BaseModel):
    good: bool
    points: list[int]


def test_the_tool_loop_ends_with_an_answer_and_finds_its_kv_again() -> None:
    agent = Agent("coder", instructions="rules " * 500, tools=[look_up, add])

    async def program(runtime: Runtime, _: EmulatedService) -> Any:
        async with runtime.session(agent) as session:
            first = await session.run("begin")
            second = await session.run("go on")
            return first, second, session.usage

    first, second, usage = on_the_rack(program, caller())
    assert first.text
    assert first.output == first.text
    assert first.num_turns > 1
    roles = [message["role"] for message in second.messages]
    assert roles[:3] == ["system", "user", "assistant"]
    assert roles[-1] == "assistant"
    assert "tool" in roles
    assert usage == first.usage + second.usage
    assert second.usage.cached_tokens > 0.85 * second.usage.prompt_tokens


def test_tools_of_one_message_run_side_by_side_and_answer_in_its_order() -> None:
    agent = Agent("caller", tools=[look_up])

    async def program(runtime: Runtime, _: EmulatedService) -> Any:
        log: list[tuple[float, Any]] = []
        async with runtime.session(agent) as session, aclosing(session.stream("begin")) as events:
            async for event in events:
                log.append((anyio.current_time(), event))  # noqa: PERF401 - as they come
        return log

    log = on_the_rack(program, caller(mean_calls=3))
    called = [(at_s, event.call_id) for at_s, event in log if isinstance(event, ToolCalled)]
    returned = [(at_s, event.call_id) for at_s, event in log if isinstance(event, ToolReturned)]
    assert [call_id for _, call_id in called] == [call_id for _, call_id in returned]
    assert len(called) > len({at_s for at_s, _ in called}), "some messages call several"
    for (before_s, _), (after_s, _) in zip(called, returned, strict=True):
        assert after_s - before_s == pytest.approx(2)
    ends = [event for _, event in log if isinstance(event, TurnEnded)]
    assert isinstance(log[-1][1], RunEnded)
    assert log[-1][1].result.num_turns == len(ends)
    assert [end.finish_reason for end in ends][-1] == "stop"
    text = "".join(event.text for _, event in log if isinstance(event, TextDelta))
    assert text.endswith(log[-1][1].result.text)


def test_streaming_and_not_is_the_same_conversation() -> None:
    agent = Agent("caller", tools=[look_up, add])

    async def whole(runtime: Runtime, _: EmulatedService) -> Any:
        async with runtime.session(agent) as session:
            return (await session.run("begin")).messages

    async def streamed(runtime: Runtime, _: EmulatedService) -> Any:
        async with runtime.session(agent) as session:
            async with aclosing(session.stream("begin")) as events:
                heard = [event async for event in events]
            assert isinstance(heard[-1], RunEnded)
            return heard[-1].result.messages

    def told(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [(m["role"], m.get("content") or "", m.get("tool_calls")) for m in messages]

    assert told(on_the_rack(whole, caller())) == told(on_the_rack(streamed, caller()))


def test_an_answer_can_be_a_pydantic_model() -> None:
    async def program(runtime: Runtime, _: EmulatedService) -> Any:
        async with runtime.session(Agent("judge")) as session:
            return await session.run("judge", output=Verdict)

    result = on_the_rack(program)
    assert isinstance(result.output, Verdict)
    assert json.loads(result.text)["good"] == result.output.good


def test_an_answer_that_was_cut_is_no_model_and_leaves_the_session_as_it_was() -> None:
    async def program(runtime: Runtime, _: EmulatedService) -> Any:
        async with runtime.session(Agent("judge", options={"max_tokens": 2})) as session:
            with pytest.raises(OutputError, match="the answer is no Verdict"):
                await session.run("judge", output=Verdict)
            return session.messages

    assert on_the_rack(program) == ()


def test_a_run_without_end_is_lost_and_a_session_does_one_thing_at_a_time() -> None:
    agent = Agent("endless", tools=[add], max_turns=3, instructions="on")

    async def program(runtime: Runtime, _: EmulatedService) -> Any:
        async with runtime.session(agent) as session:
            with pytest.raises(TurnLimitError, match="no answer in 3 model calls"):
                await session.run("begin")
            assert session.messages == ({"role": "system", "content": "on"},)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(swallow_limit, session.run)
                await anyio.sleep(0.001)
                with pytest.raises(SessionBusyError, match="is at work"):
                    await session.run("me too")

    on_the_rack(program, SeededModel(1, ReplyLength(30), ToolUse(1000, 1000, 1)))


async def swallow_limit(run: Any) -> None:
    with pytest.raises(TurnLimitError):
        await run("again")


@pytest.mark.parametrize("streaming", [True, False])
def test_a_cancelled_run_frees_its_kv_and_leaves_the_session_usable(streaming: bool) -> None:
    agent = Agent("patient", tools=[look_up], instructions="rules " * 2000)

    async def program(runtime: Runtime, service: EmulatedService) -> Any:
        async with runtime.session(agent) as session:
            for patience_s in (0.01, 0.05, 0.3, 1.0, 2.5, 4.0):
                with anyio.move_on_after(patience_s) as scope:
                    if streaming:
                        async with aclosing(session.stream("begin")) as events:
                            async for _ in events:
                                pass
                    else:
                        await session.run("begin")
                if scope.cancelled_caught:
                    assert [m["role"] for m in session.messages][:1] == ["system"]
                    assert session.messages[-1]["role"] in {"system", "assistant"}
                await anyio.sleep(0.1)
                assert service.rack.kv_active_ratio() == 0
            return await session.run("at last")

    assert on_the_rack(program, caller()).text


@pytest.mark.parametrize(
    ("called", "arguments", "says"),
    [
        (look_up, '{"word": "x", "at_most": 2}', '["x","x"]'),
        (add, '{"a": 1, "b": 2.5}', "3.5"),
    ],
)
def test_results_are_told_as_json(called: Any, arguments: str, says: str) -> None:
    assert anyio.run(called.call, arguments) == says


class ScriptedServer:
    """Answers with what it is given, one after the other; records what it is asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/models", self.models),
            ]
        )

    async def models(self, _: Request) -> Response:
        return JSONResponse({"data": []})

    async def chat(self, request: Request) -> Response:
        self.asked.append(await request.json())
        self.headers.append(request.headers)
        answer = self.answers.pop(0)
        if isinstance(answer, Response):
            return answer
        choice = {"index": 0, "message": {"role": "assistant", **answer}, "finish_reason": "stop"}
        return JSONResponse({"choices": [choice]})

    def run(self, agent: Agent, program: Any = None, **kwargs: Any) -> Any:
        async def main() -> Any:
            async with (
                Runtime.connect(
                    "http://server/v1",
                    model="m",
                    api_key="key",
                    transport=StreamingAsgiTransport(self.app),
                    **kwargs,
                ) as runtime,
                runtime.session(agent, session_id="me") as session,
            ):
                if program is not None:
                    return await program(session)
                return await session.run("begin")

        return anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})


def calling(*calls: tuple[str, str]) -> dict[str, Any]:
    tool_calls = [
        {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(calls)
    ]
    return {"content": None, "tool_calls": tool_calls}


def test_whatever_goes_wrong_with_a_tool_is_told_to_the_model() -> None:
    wrong = calling(
        ("look_up", '{"word": 7, "more": 1}'),
        ("look_up", "no json"),
        ("nothing", "{}"),
        ("slow", "{}"),
        ("breaks", '{"reason": "rain"}'),
        ("add", '{"a": 1, "b": 2}'),
    )
    server = ScriptedServer(wrong, {"content": "sorry"})
    result = server.run(Agent("a", tools=[look_up, add, never_ends, breaks]))
    assert result.text == "sorry"
    told = [message["content"] for message in server.asked[1]["messages"][-6:]]
    assert told[0].startswith("error: wrong arguments: word: ")
    assert "more: Extra inputs" in told[0]
    assert told[1].startswith("error: wrong arguments: arguments: Invalid JSON")
    assert told[2] == "error: no tool 'nothing'; there is: look_up, add, slow, breaks"
    assert told[3] == "error: no result within 1.5 s"
    assert told[4] == "error: RuntimeError: it broke: rain"
    assert told[5] == "3.0"
    assert server.headers[0]["x-session-id"] == "me"
    assert server.headers[0]["authorization"] == "Bearer key"


def test_a_signature_is_the_schema() -> None:
    definition = look_up.definition()["function"]
    assert definition["description"] == "Look a word up."
    schema = definition["parameters"]
    assert schema["required"] == ["word"]
    assert schema["properties"]["at_most"]["maximum"] == 9
    assert schema["additionalProperties"] is False
    with pytest.raises(ConfigError, match="has no name that JSON could give"):
        tool(lambda *words: words)
    with pytest.raises(ConfigError, match="two tools have one name"):
        Agent("a", tools=[add, add])


def test_busy_servers_are_asked_again_when_they_say() -> None:
    busy = JSONResponse({"error": {"message": "busy"}}, 503, headers={"retry-after": "7"})
    server = ScriptedServer(busy, JSONResponse({}, 429), {"content": "now"})

    async def program(session: Any) -> Any:
        began_s = anyio.current_time()
        result = await session.run("begin")
        return result.text, anyio.current_time() - began_s

    assert server.run(Agent("a"), program) == ("now", 8.0)


@pytest.mark.parametrize(
    ("answers", "says", "status"),
    [
        ([JSONResponse({"error": {"message": "bad key"}}, 401)], "401: bad key", 401),
        ([JSONResponse({"error": "no"}, 500)] * 3, r"500: no \(tried 3 times\)", 500),
        ([Response("<html>", 502)] * 3, "502", 502),
        ([Response("[]")] * 3, "JSON that is no object", None),
        ([Response("nothing")] * 3, "what is no JSON", None),
    ],
)
def test_servers_that_fail_are_named_with_what_they_say(
    answers: list[Any], says: str, status: int | None
) -> None:
    with pytest.raises(ModelCallError, match=says) as caught:
        ScriptedServer(*answers).run(Agent("a"))
    assert caught.value.status == status


def broken_stream() -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        yield b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n'
        yield b'data: {"error": {"message": "out of memory"}}\n\n'

    return StreamingResponse(events(), media_type="text/event-stream")


def test_a_stream_that_breaks_is_an_error_and_not_an_answer() -> None:
    heard = []

    async def listen(session: Any) -> None:
        async with aclosing(session.stream("begin")) as events:
            async for event in events:
                heard.append(event)  # noqa: PERF401 - until it breaks

    async def program(session: Any) -> list[str]:
        with pytest.raises(ModelCallError, match="out of memory"):
            await listen(session)
        assert session.messages == ()
        return [event.text for event in heard if isinstance(event, TextDelta)]

    assert ScriptedServer(broken_stream()).run(Agent("a"), program) == ["half"]


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def hang(_: Request) -> Response:
        await anyio.sleep_forever()
        return Response()

    server = ScriptedServer()
    server.app = Starlette(routes=[Route("/v1/chat/completions", hang, methods=["POST"])])
    with pytest.raises(ModelCallError, match="ReadTimeout"):
        server.run(Agent("a"), timeout_s=20.0)


def test_nobody_to_connect_to_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PANJIU_BASE_URL", "OPENAI_BASE_URL", "PANJIU_MODEL"):
        monkeypatch.delenv(name, raising=False)

    async def main(*args: str, **kwargs: Any) -> None:
        async with Runtime.connect(*args, **kwargs):
            pass

    with pytest.raises(ConfigError, match="set OPENAI_BASE_URL"):
        anyio.run(main)
    with pytest.raises(ModelCallError, match="no model was named"):
        anyio.run(main, "http://127.0.0.1:9/v1")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_works_over_sockets_as_well() -> None:
    async with served_rack(speaker=caller()) as served:
        async with (
            Runtime.connect(f"{served.url}/v1") as runtime,
            runtime.session(Agent("a", tools=[add])) as session,
        ):
            result = await session.run("begin")
        await served.wait_until_idle()
    assert result.text
    assert result.usage.output_tokens > 0
    assert result.usage + Usage() == result.usage
