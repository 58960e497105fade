"""``/v1/messages`` as Anthropic's clients see it."""

import json
from itertools import pairwise
from typing import Any

import anthropic
import anyio
import jsonschema
import pytest
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from agent_runtime.errors import BackendError, BackendStoppedError
from tests.fake_runner import FakeRunner, send
from tests.served_rack import MODEL, served_rack
from tests.speaking_clients import SCHEMA, anthropic_of, app_of, busy

pytestmark = pytest.mark.anyio

HELLO: list[Any] = [{"role": "user", "content": "Read the file and say what it does."}]
SEARCH: Any = {"name": "search", "description": "Search the files.", "input_schema": SCHEMA}


class City(BaseModel):
    name: str = Field(max_length=40)
    people: int


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_an_answer_has_its_text_its_reason_and_a_usage_that_adds_up() -> None:
    runner = FakeRunner()
    async with anthropic_of(app_of(runner)) as client:
        answer = await client.messages.create(model=MODEL, max_tokens=7, messages=HELLO)
        long = await client.messages.create(model=MODEL, max_tokens=5000, messages=HELLO)
    assert answer.role == "assistant"
    assert answer.stop_reason == "max_tokens"
    assert isinstance(answer.content[0], anthropic.types.TextBlock)
    assert answer.usage.output_tokens == 7
    assert answer.usage.input_tokens == runner.requests[0].num_prompt_tokens
    assert answer.usage.cache_read_input_tokens == answer.usage.cache_creation_input_tokens == 0
    assert long.stop_reason == "end_turn"


async def test_a_stream_has_the_events_of_the_api_and_says_the_same() -> None:
    async with anthropic_of(app_of()) as client:
        whole = await client.messages.create(model=MODEL, max_tokens=300, messages=HELLO)
        async with client.messages.stream(model=MODEL, max_tokens=300, messages=HELLO) as stream:
            assert "text" in {event.type async for event in stream}
            final = await stream.get_final_message()
        raw = [
            event.type
            async for event in await client.messages.create(
                model=MODEL, max_tokens=300, messages=HELLO, stream=True
            )
        ]
    assert final.content[0].model_dump() == whole.content[0].model_dump()
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == whole.stop_reason
    assert raw[:2] == ["message_start", "content_block_start"]
    assert set(raw[2:-3]) == {"content_block_delta"}
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]


async def test_every_streamed_event_is_named_after_its_type() -> None:
    body = json.dumps({"max_tokens": 20, "messages": HELLO, "stream": True}).encode()
    answer = await send(app_of(), body, "/v1/messages")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\n") for event in answer.text.strip().split("\n\n")]
    for name, data in events:
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    assert [name for name, _ in events].count("event: ping") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_ends_and_calls_fit_the_schema(stream: bool) -> None:
    runner = FakeRunner()
    async with anthropic_of(app_of(runner, busy(3))) as client:
        messages: list[Any] = list(HELLO)
        answer: Any = None
        for _ in range(20):
            arguments: Any = {
                "model": MODEL, "max_tokens": 4000, "messages": messages, "tools": [SEARCH],
            }  # fmt: skip
            if stream:
                async with client.messages.stream(**arguments) as events:
                    answer = await events.get_final_message()
            else:
                answer = await client.messages.create(**arguments)
            messages.append({"role": "assistant", "content": answer.content})
            if answer.stop_reason != "tool_use":
                break
            results: list[Any] = []
            for block in answer.content:
                if isinstance(block, anthropic.types.ToolUseBlock):
                    assert block.id.startswith("toolu_")
                    jsonschema.validate(block.input, SCHEMA)
                    results.append(
                        {"type": "tool_result", "tool_use_id": block.id, "content": "found"}
                    )
            results.append({"type": "text", "text": "<system-reminder>go on</system-reminder>"})
            messages.append({"role": "user", "content": results})
        assert answer.stop_reason == "end_turn"
    assert len(runner.requests) == 4
    sessions = {request.session_id for request in runner.requests}
    assert len(sessions) == 1, "found by the history"
    for before, now in pairwise(runner.requests):
        kept = len(before.block_hashes)
        assert now.block_hashes[:kept] == before.block_hashes, "calls sent back extend the blocks"
    assert runner.requests[0].gap.tools[0] == "search"


async def test_the_usage_tells_what_was_in_the_cache_and_what_is_newly_there() -> None:
    async with served_rack() as served, anthropic.AsyncAnthropic(
        api_key="-", base_url=served.url, max_retries=0
    ) as client:  # fmt: skip
        system: Any = [
            {"type": "text", "text": "word " * 300, "cache_control": {"type": "ephemeral"}}
        ]
        messages = list(HELLO)
        first = await client.messages.create(
            model=MODEL, max_tokens=20, messages=messages, system=system
        )
        messages += [
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": "Go on."},
        ]
        second = await client.messages.create(
            model=MODEL, max_tokens=20, messages=messages, system=system
        )
        plain = await client.messages.create(
            model=MODEL, max_tokens=20, messages=messages, system="word " * 300
        )
        await served.wait_until_idle()
    assert first.usage.cache_read_input_tokens == 0
    assert 300 <= (first.usage.cache_creation_input_tokens or 0) <= 303
    assert first.usage.input_tokens < 30, "what is behind the breakpoint"
    assert (second.usage.cache_read_input_tokens or 0) >= 300
    assert second.usage.cache_creation_input_tokens == 0
    assert plain.usage.cache_creation_input_tokens == 0
    total = (plain.usage.cache_read_input_tokens or 0) + plain.usage.input_tokens
    assert total == second.usage.input_tokens + (second.usage.cache_read_input_tokens or 0)


async def test_count_tokens_counts_what_a_turn_would_have() -> None:
    runner = FakeRunner()
    async with anthropic_of(app_of(runner)) as client:
        arguments: Any = {
            "model": MODEL, "messages": HELLO, "system": "Be brief.", "tools": [SEARCH],
        }  # fmt: skip
        counted = await client.messages.count_tokens(**arguments)
        await client.messages.create(max_tokens=3, **arguments)
        thinking = await client.messages.count_tokens(
            **arguments, thinking={"type": "enabled", "budget_tokens": 1024}
        )
    assert counted.input_tokens == runner.requests[0].num_prompt_tokens == thinking.input_tokens
    assert len(runner.requests) == 1, "counting runs no turn"


async def test_stop_sequences_and_tool_choice_are_followed() -> None:
    async with anthropic_of(app_of()) as client:
        full = await client.messages.create(model=MODEL, max_tokens=500, messages=HELLO)
        text = full.content[0].model_dump()["text"]
        stop = text[30:36]
        cut = await client.messages.create(
            model=MODEL, max_tokens=500, messages=HELLO, stop_sequences=[stop]
        )
        assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
        assert cut.content[0].model_dump()["text"] == text[: text.index(stop)]
        choices: list[Any] = [{"type": "any"}, {"type": "tool", "name": "search"}]
        for choice in choices:
            called = await client.messages.create(
                model=MODEL,
                max_tokens=500,
                messages=HELLO,
                tools=[SEARCH],
                tool_choice=choice,
            )
            assert called.stop_reason == "tool_use"
        silent = await client.messages.create(
            model=MODEL, max_tokens=500, messages=HELLO, tools=[SEARCH],
            tool_choice={"type": "none"},
        )  # fmt: skip
        assert [block.type for block in silent.content] == ["text"]


async def test_what_claude_code_sends_is_taken() -> None:
    runner = FakeRunner()
    user_id = json.dumps({"device_id": "d", "account_uuid": "", "session_id": "cc-1"})
    body: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 32000,
        "stream": True,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330; cch=00001;"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        ],
        "tools": [
            {"name": "Bash", "input_schema": SCHEMA, "defer_loading": True},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Fix it."}]},
            {"role": "system", "content": "A reminder."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"query": "ls"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": [{"type": "text", "text": "a.py"}],
                        "cache_control": {"type": "ephemeral", "ttl": "1h"},
                    }
                ],
            },
        ],
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": user_id},
    }
    app = app_of(runner)
    headers = {"X-Claude-Code-Session-Id": "cc-1"}
    answer = await send(app, json.dumps(body).encode(), "/v1/messages?beta=true", headers=headers)
    assert answer.status_code == 200
    assert answer.text.rstrip().endswith('data: {"type":"message_stop"}')
    (request,) = runner.requests
    assert request.gap.lease_s == 3600.0, "the longest lifetime asked for"
    assert set(request.gap.tools) <= {"Bash"}, "tools of the provider are never called"
    body["system"][0]["text"] = "x-anthropic-billing-header: cc_version=2.1.330; cch=00002;"
    await send(app, json.dumps(body).encode(), "/v1/messages", headers=headers)
    assert runner.requests[1].block_hashes == request.block_hashes, "attribution is no prompt"


async def test_programs_under_one_claude_code_session_are_sessions_of_their_own() -> None:
    runner = FakeRunner()
    app = app_of(runner)

    async def ask(*texts: str) -> None:
        roles = ["user", "assistant"] * len(texts)
        messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
        body = json.dumps({"max_tokens": 3, "messages": messages}).encode()
        await send(app, body, "/v1/messages", headers={"X-Claude-Code-Session-Id": "cc-1"})

    await ask("Fix the parser.")
    await ask("Write a title.")
    await ask("Fix the parser.", "another reply than was given", "Go on.")
    ids = [request.session_id for request in runner.requests]
    assert ids[0] != ids[1]
    assert ids[2] == ids[0], "its own messages are known, though the reply is not"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"system": 7}, r"system: Input should be a valid string, or: "),
        ({"messages": [{"role": "user", "content": ["x"]}]}, r"messages\[0\]\.content\[0\]: "),
        ({"messages": [{"role": "boss", "content": "x"}]}, r"messages\[0\]\.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            r"messages\[0\]\.content\[0\]: the emulated model reads text only; .*'image'",
        ),
        ({"tools": [{"name": "a"}]}, r"tools\[0\]\.input_schema"),
        ({"tool_choice": {"type": "tool", "name": "a"}}, "tool_choice"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "content": "x"}]}
                ]
            },
            "tool_use_id",
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "9d"}}
            ]}]},
            "cache_control",
        ),
        ({"panjiu": {"prority": 1}}, "panjiu.prority"),
    ],
)  # fmt: skip
async def test_a_bad_request_is_anthropics_own_exception_and_names_the_field(
    change: dict[str, Any], match: str
) -> None:
    arguments = {"model": MODEL, "max_tokens": 5, "messages": HELLO, **change}
    extra = {"panjiu": arguments.pop("panjiu")} if "panjiu" in arguments else None
    async with anthropic_of(app_of()) as client:
        with pytest.raises(anthropic.BadRequestError, match=match) as refused:
            await client.messages.create(**arguments, extra_body=extra)
    assert refused.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]


async def test_other_errors_have_anthropics_shape_too() -> None:
    async with anthropic_of(app_of()) as client:
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.messages.create(model="claude-9", max_tokens=5, messages=HELLO)
        assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    async with anthropic_of(app_of(FakeRunner(max_context_tokens=50))) as client:
        long: Any = [{"role": "user", "content": "word " * 100}]
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: This model"):
            await client.messages.create(model=MODEL, max_tokens=5, messages=long)
        answer = await client.messages.create(model=MODEL, max_tokens=5, messages=HELLO)
        assert answer._request_id == "2"
    stopped = app_of(FakeRunner(refusal=BackendStoppedError()))
    async with anthropic_of(stopped) as client:
        with pytest.raises(anthropic.InternalServerError, match="shutting down") as down:
            await client.messages.create(model=MODEL, max_tokens=5, messages=HELLO)
        assert down.value.status_code == 503
        assert down.value.response.headers["retry-after"] == "5"
    wrong = await send(app_of(), b"", "/v1/messages", method="GET")
    assert wrong.status_code == 405
    assert wrong.json()["type"] == "error"


async def test_a_stream_that_breaks_ends_with_an_error_event() -> None:
    broken = app_of(FakeRunner(failure=BackendError("replica 3 is gone")))
    async with anthropic_of(broken) as client:
        with pytest.raises(anthropic.APIStatusError, match="replica 3 is gone"):
            async for _ in await client.messages.create(
                model=MODEL, max_tokens=50, messages=HELLO, stream=True
            ):
                pass


async def test_pydantic_ai_gets_its_output_type_over_messages() -> None:
    looked: list[str] = []

    def look_up(name: str) -> str:
        """Look something up."""
        looked.append(name)
        return f"found {name}"

    async with anthropic_of(app_of()) as client:
        model = AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=client))
        agent = Agent(model, output_type=City, tools=[look_up])
        for number in range(3):
            looked.clear()
            result = await agent.run(f"Tell me about city {number}.")
            assert isinstance(result.output, City)
            assert result.usage.tool_calls == len(looked)


async def test_the_sync_client_and_the_models_route_work_on_a_socket() -> None:
    async with served_rack() as served:

        def use() -> None:
            with anthropic.Anthropic(api_key="-", base_url=served.url, max_retries=0) as client:
                with client.messages.stream(model=MODEL, max_tokens=30, messages=HELLO) as stream:
                    assert "".join(stream.text_stream)
                (model,) = client.models.list().data
                assert (model.id, model.type) == (MODEL, "model")
                assert client.models.retrieve(MODEL).display_name == MODEL

        await anyio.to_thread.run_sync(use)  # noqa: TID251 - a sync client blocks
        await served.wait_until_idle()
