"""Agent programs as users write them, against the endpoint: they run unchanged, and end."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any, Literal

import anyio
import httpx2
import jsonschema
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_model.tool_use import ToolUse
from agent_runtime.errors import BackendError
from agent_runtime.gateway.app import create_app
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from tests.fake_runner import HELLO, FakeRunner, app_over, chat, send
from tests.served_rack import MODEL, openai_client, served_rack

pytestmark = pytest.mark.anyio

SEARCH: Any = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the files.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 3},
                "limit": {"type": "integer", "minimum": 1, "maximum": 9},
                "where": {"$ref": "#/$defs/Where"},
            },
            "required": ["query", "where"],
            "additionalProperties": False,
            "$defs": {"Where": {"enum": ["src", "tests"]}},
        },
    },
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def in_process(
    runner: FakeRunner | None = None, model: SeededModel | None = None
) -> AsyncIterator[openai.AsyncOpenAI]:
    app = create_app(runner or FakeRunner(), model=MODEL, speaker=model)
    async with httpx2.AsyncClient(transport=StreamingAsgiTransport(app), timeout=None) as http:
        yield openai.AsyncOpenAI(
            api_key="-", base_url="http://rack/v1", http_client=http, max_retries=0
        )


class City(BaseModel):
    name: str = Field(max_length=40)
    kind: Literal["town", "city"]
    districts: list["City"] = []


def busy(num_steps: int) -> SeededModel:
    """Return a model whose tool loops nearly always take so many steps."""
    return SeededModel(tool_use=ToolUse(mean_steps=1e6, max_steps=num_steps, mean_calls=1.5))


async def tool_loop(client: openai.AsyncOpenAI, task: str, *, stream: bool) -> list[Any]:
    """Run a loop as OpenAI's guides write it; return its messages and usages."""
    messages: list[Any] = [{"role": "user", "content": task}]
    usages = []
    for _ in range(30):
        arguments: Any = {"model": MODEL, "messages": messages, "tools": [SEARCH]}
        if stream:
            async with client.chat.completions.stream(
                **arguments, stream_options={"include_usage": True}
            ) as chunks:
                answer: Any = await chunks.get_final_completion()
        else:
            answer = await client.chat.completions.create(**arguments)
        usages.append(answer.usage)
        choice = answer.choices[0]
        messages.append(choice.message.model_dump(exclude_none=True))
        if choice.finish_reason != "tool_calls":
            assert choice.message.content
            return [messages, usages]
        for call in choice.message.tool_calls:
            asked = json.loads(call.function.arguments)
            jsonschema.validate(asked, SEARCH["function"]["parameters"])
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "content": f"found {asked['query']}"}
            )
    raise AssertionError("the loop does not end")


async def test_a_tool_loop_ends_and_each_turn_finds_the_last_ones_calls_in_the_cache() -> None:
    async with served_rack() as served, openai_client(served) as client:
        for task in ("Fix the parser.", "Read all tests."):
            messages, usages = await tool_loop(client, task, stream=False)
            streamed, stream_usages = await tool_loop(client, task, stream=True)
            assert len(messages) >= 2
            plain = [{k: v for k, v in m.items() if k in {"role", "content"}} for m in streamed]
            for message, other in zip(messages, plain, strict=True):
                assert message.get("content") == other.get("content"), "streamed or not"
            assert [u.completion_tokens for u in usages] == [
                u.completion_tokens for u in stream_usages
            ]
            for before, now in pairwise(usages):
                known = before.prompt_tokens + before.completion_tokens
                assert now.prompt_tokens_details.cached_tokens >= known - 16, "but a partial block"
        await served.wait_until_idle()


async def test_streamed_calls_come_as_vllm_sends_them() -> None:
    async with in_process(model=busy(1)) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, tools=[SEARCH], tool_choice="required", stream=True
        )
        chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks]
    assert choices[0].delta.role == "assistant"
    deltas = [call for choice in choices for call in choice.delta.tool_calls or []]
    pieces: dict[int, str] = {}
    for delta in deltas:
        assert delta.function is not None
        if delta.index not in pieces:
            assert (delta.id or "").startswith("chatcmpl-tool-")
            assert (delta.type, delta.function.name) == ("function", "search")
            assert delta.function.arguments is None
            pieces[delta.index] = ""
        else:
            assert (delta.id, delta.function.name) == (None, None)
            pieces[delta.index] += delta.function.arguments or ""
    assert list(pieces) == list(range(len(pieces)))
    for arguments in pieces.values():
        jsonschema.validate(json.loads(arguments), SEARCH["function"]["parameters"])
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["tool_calls"]
    assert not any(choice.delta.content for choice in choices)


async def test_structured_outputs_parse() -> None:
    async with in_process() as client:
        answer = await client.chat.completions.parse(
            model=MODEL, messages=HELLO, response_format=City
        )
        assert isinstance(answer.choices[0].message.parsed, City)
        async with client.chat.completions.stream(
            model=MODEL, messages=HELLO, response_format=City
        ) as events:
            final = await events.get_final_completion()
        assert final.choices[0].message.parsed == answer.choices[0].message.parsed
        tool = openai.pydantic_function_tool(City)
        called = await client.chat.completions.parse(
            model=MODEL, messages=HELLO, tools=[tool],
            tool_choice={"type": "function", "function": {"name": "City"}},
        )  # fmt: skip
        assert called.choices[0].finish_reason == "stop", "a named tool's, as in vLLM"
        (call,) = called.choices[0].message.tool_calls or []
        assert isinstance(call.function.parsed_arguments, City)
        with pytest.raises(openai.LengthFinishReasonError):
            await client.chat.completions.parse(
                model=MODEL, messages=HELLO, response_format=City, max_tokens=3
            )


async def test_vllms_structured_outputs_are_kept() -> None:
    async def content(**structured) -> str:
        answer = await client.chat.completions.create(
            model=MODEL, messages=HELLO, extra_body={"structured_outputs": structured}
        )
        return answer.choices[0].message.content or ""

    async with in_process() as client:
        assert await content(choice=["yes", "no"]) in {"yes", "no"}
        assert len(await content(regex=r"[A-Z]{3}-\d{2}")) == 6
        assert json.loads(await content(json={"const": {"a": [1]}})) == {"a": [1]}
        assert json.loads(await content(json='{"enum": [7]}')) == 7
        assert isinstance(json.loads(await content(json_object=True)), dict)
        plain = await client.chat.completions.create(
            model=MODEL, messages=HELLO, response_format={"type": "json_object"}
        )
        assert isinstance(json.loads(plain.choices[0].message.content or ""), dict)


async def test_stop_strings_end_a_text_before_them_streamed_or_not() -> None:
    async with in_process() as client:
        full = await client.chat.completions.create(model=MODEL, messages=HELLO)
        text = full.choices[0].message.content or ""
        stop = text[40:47]
        arguments: Any = {"model": MODEL, "messages": HELLO, "stop": [stop, "§"]}
        cut = await client.chat.completions.create(**arguments)
        assert cut.choices[0].message.content == text[: text.index(stop)]
        assert cut.choices[0].finish_reason == "stop"
        assert cut.choices[0].model_extra is not None
        assert cut.choices[0].model_extra["stop_reason"] == stop
        chunks = [c async for c in await client.chat.completions.create(**arguments, stream=True)]
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert said == cut.choices[0].message.content
        assert (chunks[-1].choices[0].model_extra or {})["stop_reason"] == stop
        assert cut.usage is not None
        assert full.usage is not None
        assert cut.usage.completion_tokens < full.usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_n_choices_are_n_turns_that_share_a_prompt(stream: bool) -> None:
    runner = FakeRunner()
    async with in_process(runner) as client:
        arguments: Any = {"model": MODEL, "messages": HELLO, "n": 3, "seed": 4}
        texts, reasons = ["", "", ""], {}
        usage = None
        if stream:
            order = []
            async for chunk in await client.chat.completions.create(
                **arguments, stream=True, stream_options={"include_usage": True}
            ):
                for choice in chunk.choices:
                    order.append(choice.index)
                    texts[choice.index] += choice.delta.content or ""
                    if choice.finish_reason:
                        reasons[choice.index] = choice.finish_reason
                usage = chunk.usage
            assert set(order[:12]) == {0, 1, 2}, "side by side"
        else:
            answer = await client.chat.completions.create(**arguments)
            usage = answer.usage
            for choice in answer.choices:
                texts[choice.index] = choice.message.content or ""
                reasons[choice.index] = choice.finish_reason
    assert len(set(texts)) == 3
    assert reasons == {0: "stop", 1: "stop", 2: "stop"}
    assert usage is not None
    assert usage.completion_tokens == sum(r.num_output_tokens for r in runner.requests)
    assert usage.prompt_tokens == runner.requests[0].num_prompt_tokens
    assert len({request.turn_id for request in runner.requests}) == 3
    assert len({request.session_id for request in runner.requests}) == 1
    assert runner.num_open == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_n_choices_on_the_rack_share_its_prefix_and_leave_nothing_behind(
    stream: bool,
) -> None:
    async with served_rack() as served, openai_client(served) as client:
        messages: Any = [{"role": "user", "content": "word " * 500}]
        if stream:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=messages, n=4, max_tokens=20, stream=True
            )
            assert {chunk.choices[0].index async for chunk in chunks} == {0, 1, 2, 3}
        else:
            answer = await client.chat.completions.create(
                model=MODEL, messages=messages, n=4, max_tokens=20
            )
            assert len(answer.choices) == 4
        await served.wait_until_idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_n_choices_frees_their_kv(stream: bool) -> None:
    async with served_rack(speed=20.0) as served, openai_client(served) as client:
        with anyio.move_on_after(0.3):
            answer: Any = await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=100_000, n=5, stream=stream,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            async for _ in answer:
                pass
        await served.wait_until_idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_of_one_choice_ends_all_of_them(stream: bool) -> None:
    runner = FakeRunner(failure=BackendError("replica 3 is gone"))
    answer = await send(app_over(runner), chat(stream=stream, n=3, max_tokens=9, ignore_eos=True))
    assert answer.status_code == (200 if stream else 502)
    assert "replica 3 is gone" in answer.text
    assert runner.num_open == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_come_one_a_token(stream: bool) -> None:
    async with in_process() as client:
        arguments: Any = {
            "model": MODEL, "messages": HELLO, "max_tokens": 20, "logprobs": True,
            "top_logprobs": 3, "tools": [SEARCH], "extra_body": {"ignore_eos": True},
        }  # fmt: skip
        entries: list[Any] = []
        if stream:
            async for chunk in await client.chat.completions.create(**arguments, stream=True):
                if chunk.choices[0].logprobs is not None:
                    entries += chunk.choices[0].logprobs.content or []
        else:
            answer = await client.chat.completions.create(**arguments)
            assert answer.choices[0].logprobs is not None
            entries += answer.choices[0].logprobs.content or []
    assert len(entries) == 20
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    assert all(bytes(entry.bytes).decode() == entry.token for entry in entries)


async def test_pydantic_ai_gets_its_output_type_with_and_without_tools() -> None:
    async with in_process() as client:
        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
        looked: list[str] = []

        def look_up(name: str, year: int | None = None) -> str:
            """Look something up."""
            looked.append(f"{name} {year}")
            return f"found {name}"

        for number in range(5):
            looked.clear()
            agent = Agent(model, output_type=City, tools=[look_up])
            result = await agent.run(f"Tell me about city {number}.")
            assert isinstance(result.output, City)
            assert result.usage.tool_calls == len(looked)
            async with agent.run_stream(f"And number {number + 1}?") as streamed:
                assert isinstance(await streamed.get_output(), City)
        text = await Agent(model).run("Hello")
        assert len(text.output.split()) > 1


def test_tool_loops_in_virtual_time_are_the_same_every_time() -> None:
    async def main() -> tuple[list[Any], float]:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(in_process(model=busy(6)))
            messages, _ = await tool_loop(client, "Fix it.", stream=True)
            await anyio.sleep(30)
            return messages, anyio.current_time()

    def run() -> Any:
        return anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})

    messages, ended_s = run()
    assert sum("tool_calls" in message for message in messages) == 6
    assert (messages, ended_s) == run()


def calling(**function) -> dict[str, Any]:
    return {
        "tools": [{"type": "function", "function": {"name": "f", **function}}],
        "tool_choice": "required",
    }


def structured(**fields) -> dict[str, Any]:
    return {"structured_outputs": fields}


def json_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", **schema}}}


NESTED: Any = {"type": "integer"}
for _ in range(80):
    NESTED = {"type": "array", "minItems": 1, "items": NESTED}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "f"}, "tools"),
        ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        (calling(parameters=[]), "tools[0].function.parameters"),
        (calling(parameters={"type": "string"}), "tools[0].function.parameters"),
        (calling(parameters={"type": 3}), "tools[0].function.parameters.type"),
        (
            calling(parameters={"required": ["a"], "properties": {"a": {"pattern": "("}}}),
            "tools[0].function.parameters.a.pattern",
        ),
        ({"tools": [SEARCH], "tool_choice": "always"}, "tool_choice.type"),
        ({"tools": [SEARCH], "tool_choice": 3}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [SEARCH], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        (
            {"tools": [SEARCH], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice.function.name",
        ),
        ({"parallel_tool_calls": "both"}, "parallel_tool_calls"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (json_schema({"schema": 3}), "response_format.json_schema.schema"),
        (json_schema({"schema": {"$ref": "#/x"}}), "response_format.json_schema.schema.$ref"),
        (json_schema({"schema": NESTED}), None),
        (structured(), "structured_outputs"),
        (structured(choice=["a"], regex="b"), "structured_outputs"),
        (structured(choice=[]), "structured_outputs.choice"),
        (structured(regex="(?=a)"), "structured_outputs.regex"),
        (structured(grammar="root ::= a"), "structured_outputs.grammar"),
        (structured(json="{"), "structured_outputs.json"),
        (structured(json="[" * 1_000), "structured_outputs.json"),
        (
            structured(json=f'{{"enum": {"[" * 900}{"]" * 900}}}'),
            "structured_outputs.json",
        ),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": list("abcde")}, "stop"),
        ({"stop": 3}, "stop"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"seed": 2**70}, "seed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_can_not_be_answered_is_a_400_that_names_the_field(
    fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    runner = FakeRunner()
    answer = await send(app_over(runner), chat(**fields, stream=stream))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    if param is None:
        assert error["param"].startswith("response_format.json_schema.schema[0][0]")
    else:
        assert error["param"] == param
    assert not runner.requests


async def test_a_megabyte_of_schema_is_answered_or_refused() -> None:
    app = create_app(FakeRunner(), model=MODEL)
    wide = {f"member_{i}": {"type": "string", "description": "x" * 200} for i in range(4_000)}
    for schema in (
        {"type": "object", "properties": wide},
        {"type": "object", "properties": wide, "required": list(wide)},
        {"anyOf": [{"type": "object", "properties": {n: wide[n]}} for n in wide]},
    ):
        answer = await send(app, chat(**calling(parameters=schema), max_tokens=10_000))
        assert answer.status_code in {200, 400}


KEYWORDS = [
    "type",
    "properties",
    "items",
    "enum",
    "const",
    "$ref",
    "$defs",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "pattern",
    "format",
    "required",
    "minItems",
    "maxItems",
    "uniqueItems",
    "prefixItems",
    "contains",
    "minContains",
    "maxContains",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "multipleOf",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "x",
]
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(KEYWORDS),
        inner | st.sampled_from(["object", "array", "string", "#", "#/properties/x"]),
        max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip


@given(any_json, any_json)
@settings(max_examples=200, deadline=None)
def test_no_schema_whatever_gets_a_500(parameters: Any, schema: Any) -> None:
    async def post(fields: dict[str, Any]) -> int:
        return (await send(app_over(FakeRunner()), chat(**fields))).status_code

    for fields in (calling(parameters=parameters), json_schema({"schema": schema})):
        assert anyio.run(post, fields) in {200, 400}
