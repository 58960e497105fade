"""``/v1/responses`` as OpenAI's client, the Agents SDK and pydantic-ai see it."""

import json
from itertools import pairwise
from typing import Any

import agents
import anyio
import httpx2
import jsonschema
import openai
import pytest
from agents.models.openai_responses import OpenAIResponsesModel
from pydantic import BaseModel, Field
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.errors import BackendError
from agent_runtime.gateway.answering import AnswerDesk, Answering
from agent_runtime.gateway.app import EndpointLimits, create_app
from agent_runtime.gateway.dialects.responses_dialect import ResponsesDialect
from agent_runtime.gateway.metrics import PrometheusCounts
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.planned_turn import TurnPlanner
from agent_runtime.gateway.request_id import RequestIds
from agent_runtime.gateway.request_limit import RequestLimit
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse, StoreLimits
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.turn_desk import TurnDesk
from agent_runtime.gateway.turn_stream import HoldTerms
from agent_runtime.gateway.waiting_line import WaitingLine
from tests.fake_runner import FakeRunner, send
from tests.served_rack import MODEL, openai_client, served_rack
from tests.speaking_clients import SCHEMA, app_of, busy, openai_of

pytestmark = pytest.mark.anyio

TASK = "Read the file and say what it does."
SEARCH: Any = {"type": "function", "name": "search", "parameters": SCHEMA, "strict": True}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class City(BaseModel):
    name: str = Field(max_length=40)
    people: int


async def test_an_answer_has_its_text_its_status_and_its_usage() -> None:
    runner = FakeRunner()
    async with openai_of(app_of(runner)) as client:
        cut = await client.responses.create(model=MODEL, input=TASK, max_output_tokens=7)
        answer = await client.responses.create(model=MODEL, input=TASK, tools=[], include=[])
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert len(cut.output_text.split()) == 7
    assert cut.usage is not None
    assert cut.usage.output_tokens == 7
    assert cut.usage.input_tokens == runner.requests[0].num_prompt_tokens
    assert answer.status == "completed"
    assert answer.output_text.startswith(cut.output_text[:20])
    assert answer.tools == []


async def test_a_stream_has_openais_events_in_order_and_says_the_same() -> None:
    async with openai_of(app_of()) as client:
        whole = await client.responses.create(model=MODEL, input=TASK)
        events = [e async for e in await client.responses.create(
            model=MODEL, input=TASK, stream=True
        )]  # fmt: skip
        async with client.responses.stream(model=MODEL, input=TASK) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    ]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == whole.output_text
    assert final.usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stored", [False, True])
async def test_a_tool_loop_ends_whether_the_client_keeps_the_history_or_the_server(
    stream: bool, stored: bool
) -> None:
    runner = FakeRunner()
    async with openai_of(app_of(runner, busy(3))) as client:
        items: list[Any] = [{"role": "user", "content": TASK}]
        previous: str | None = None
        answer: Any = None
        for _ in range(20):
            arguments: Any = {
                "model": MODEL, "input": items, "tools": [SEARCH], "store": stored,
                "previous_response_id": previous, "instructions": "Be brief.",
            }  # fmt: skip
            if stream:
                async with client.responses.stream(**arguments) as events:
                    async for _event in events:
                        pass
                    answer = await events.get_final_response()
            else:
                answer = await client.responses.create(**arguments)
            calls = [item for item in answer.output if item.type == "function_call"]
            if not calls:
                break
            outputs = []
            for call in calls:
                jsonschema.validate(json.loads(call.arguments), SCHEMA)
                outputs.append(
                    {"type": "function_call_output", "call_id": call.call_id, "output": "found"}
                )
            if stored:
                previous, items = answer.id, outputs
            else:
                sent_back = [item.model_dump(exclude_none=True) for item in answer.output]
                items += [{"type": "reasoning", "id": "rs_1", "summary": []}, *sent_back, *outputs]
        assert answer.output_text
    assert len(runner.requests) == 4
    assert len({request.session_id for request in runner.requests}) == 1
    for before, now in pairwise(runner.requests):
        kept = len(before.block_hashes)
        assert now.block_hashes[:kept] == before.block_hashes, "calls sent back extend the blocks"


async def test_streamed_calls_come_with_their_events() -> None:
    async with openai_of(app_of(model=busy(1))) as client:
        events: list[Any] = [e async for e in await client.responses.create(
            model=MODEL, input=TASK, tools=[SEARCH], tool_choice="required", stream=True
        )]  # fmt: skip
    pieces: dict[str, str] = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            pieces[event.item_id] = pieces.get(event.item_id, "") + event.delta
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert {e.item_id: e.arguments for e in done} == pieces
    output = events[-1].response.output
    assert [item.id for item in output] == list(pieces)
    added = [e.item for e in events if e.type == "response.output_item.added"]
    assert [item.call_id for item in added] == [item.call_id for item in output]


async def test_kept_responses_are_read_deleted_and_gone_on_with() -> None:
    async with openai_of(app_of()) as client:
        answer = await client.responses.create(model=MODEL, input=TASK)
        assert (await client.responses.retrieve(answer.id)).output_text == answer.output_text
        reference: Any = {"type": "item_reference", "id": answer.output[0].id}
        named = await client.responses.create(
            model=MODEL, input=[{"role": "user", "content": TASK}, reference, {
                "role": "user", "content": "Go on."}]
        )  # fmt: skip
        continued = await client.responses.create(
            model=MODEL, input="Go on.", previous_response_id=answer.id
        )
        assert named.output_text == continued.output_text
        with pytest.raises(openai.BadRequestError, match="is completed"):
            await client.responses.cancel(answer.id)
        await client.responses.delete(answer.id)
        with pytest.raises(openai.NotFoundError, match="send the whole conversation"):
            await client.responses.retrieve(answer.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(
                model=MODEL, input="Go on.", previous_response_id=answer.id
            )
        forgotten = await client.responses.create(model=MODEL, input=TASK, store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(forgotten.id)


async def test_no_more_responses_are_kept_than_may_be_nor_longer() -> None:
    now = EndpointLimits(responses=StoreLimits(max_responses=2))
    async with openai_of(create_app(FakeRunner(), model=MODEL, limits=now)) as client:
        ids = [(await client.responses.create(model=MODEL, input=TASK)).id for _ in range(3)]
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(ids[0])
        assert (await client.responses.retrieve(ids[2])).id == ids[2]
    old = EndpointLimits(responses=StoreLimits(ttl_s=0.0))
    async with openai_of(create_app(FakeRunner(), model=MODEL, limits=old)) as client:
        answer = await client.responses.create(model=MODEL, input=TASK)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(answer.id)


async def test_a_response_in_progress_can_be_cancelled_from_beside() -> None:
    async with served_rack(speed=20.0) as served, openai_client(served) as client:
        stream: Any = await client.responses.create(
            model=MODEL, input=TASK, stream=True, extra_body={"ignore_eos": True},
            max_output_tokens=200_000,
        )  # fmt: skip
        created = await anext(stream)
        await client.responses.cancel(created.response.id)
        last = [event async for event in stream][-1]
        assert last.response.status == "cancelled"
        kept = await client.responses.retrieve(created.response.id)
        assert kept.status == "cancelled"
        await served.wait_until_idle()


async def test_formats_parse_and_log_probabilities_come_where_they_are_asked_for() -> None:
    async with openai_of(app_of()) as client:
        parsed = await client.responses.parse(model=MODEL, input=TASK, text_format=City)
        assert isinstance(parsed.output_parsed, City)
        answer: Any = await client.responses.create(
            model=MODEL, input=TASK, max_output_tokens=9, top_logprobs=2,
            include=["message.output_text.logprobs"],
        )  # fmt: skip
        entries = answer.output[0].content[0].logprobs
        assert [len(entry.top_logprobs) for entry in entries] == [2] * 9
        assert "".join(entry.token for entry in entries) == answer.output_text


async def test_what_codex_sends_is_taken_and_its_thread_is_the_session() -> None:
    runner = FakeRunner()
    tools = [
        SEARCH,
        {"type": "namespace", "name": "mcp", "tools": [{"type": "function", "name": "x"}]},
        {"type": "web_search"},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
    ]
    body = {
        "model": MODEL,
        "instructions": "You are Codex.",
        "input": [
            {"type": "message", "role": "developer", "content": "a"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
            {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** P"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        ],
        "tools": tools,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "thread-7",
        "client_metadata": {"x-codex-installation-id": "i"},
    }  # fmt: skip
    headers = {"session-id": "session-1", "thread-id": "thread-7",
               "x-codex-parent-thread-id": "thread-1"}  # fmt: skip
    answer = await send(app_of(runner), json.dumps(body).encode(), "/v1/responses", headers=headers)
    assert answer.status_code == 200
    assert "response.completed" in answer.text
    assert "[DONE]" not in answer.text
    (request,) = runner.requests
    assert set(request.gap.tools) <= {"search"}
    assert request.parent_id == "thread-1"


async def test_a_cache_key_that_conversations_share_does_not_merge_them() -> None:
    runner = FakeRunner()
    async with openai_of(app_of(runner)) as client:
        for task in ("one", "two"):
            first = await client.responses.create(
                model=MODEL, input=task, prompt_cache_key="shared", prompt_cache_retention="24h"
            )
            history: Any = [{"role": "user", "content": task}, *first.output]
            await client.responses.create(
                model=MODEL,
                input=[*history, {"role": "user", "content": "Go on."}],
                prompt_cache_key="shared",
            )
    one, one_again, two, two_again = (request.session_id for request in runner.requests)
    assert one == one_again != two == two_again
    assert [request.gap.lease_s for request in runner.requests] == [86_400.0, 0, 86_400.0, 0]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": None}, "input"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_0"}]}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
        ),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"prompt_cache_retention": "1h"}, "prompt_cache_retention"),
        ({"temperature": 3}, "temperature"),
    ],
)
async def test_a_bad_request_is_openais_own_exception_and_names_the_field(
    change: dict[str, Any], param: str
) -> None:
    body = json.dumps({"input": TASK, **change}).encode()
    answer = await send(app_of(), body, "/v1/responses")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_breaks_is_a_failed_response(stream: bool) -> None:
    app = app_of(FakeRunner(failure=BackendError("replica 3 is gone")))
    async with openai_of(app) as client:
        if not stream:
            with pytest.raises(openai.InternalServerError, match="replica 3 is gone"):
                await client.responses.create(model=MODEL, input=TASK)
            return
        events: list[Any] = [e async for e in await client.responses.create(
            model=MODEL, input=TASK, stream=True
        )]  # fmt: skip
        assert events[-1].type == "response.failed"
        assert "replica 3 is gone" in events[-1].response.error.message
        assert (await client.responses.retrieve(events[0].response.id)).status == "failed"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_never_began_is_not_kept(stream: bool) -> None:
    store: ResponseStore[StoredResponse] = ResponseStore(StoreLimits(), lambda: 0.0)
    dialect = ResponsesDialect(store)
    runner = FakeRunner(refusal=BackendError("replica 3 is gone"))
    line, models = WaitingLine(30.0), Models.of_one(MODEL, 0, 100)
    opening = Opening(runner, models, SessionDirectory(16), 1000, line)
    planner = TurnPlanner(opening, SeededModel())
    counts = PrometheusCounts(opening.sessions, None)
    turns = TurnDesk(opening, RequestLimit(9), counts, HoldTerms())
    desk = AnswerDesk(turns, planner, MODEL, lambda: 0.0)
    route = Route("/v1/responses", Answering(dialect, desk).answer, methods=["POST"])
    app = Starlette(routes=[route], middleware=[Middleware(RequestIds)])
    answer = await send(app, json.dumps({"input": TASK, "stream": stream}).encode(), route.path)
    assert answer.status_code == 502
    assert len(store) == 0


async def test_the_agents_sdk_runs_on_its_default_model_class() -> None:
    agents.set_tracing_disabled(True)
    looked: list[str] = []

    @agents.function_tool
    def look_up(name: str) -> str:
        """Look something up."""
        looked.append(name)
        return f"found {name}"

    async with openai_of(app_of(model=busy(2))) as client:
        model = OpenAIResponsesModel(MODEL, openai_client=client)
        agent = agents.Agent(name="a", instructions="Be brief.", tools=[look_up], model=model)
        result = await agents.Runner.run(agent, "What is in the file?")
        assert result.final_output
        assert looked
        streamed = agents.Runner.run_streamed(agent, "And in the other?")
        async for _ in streamed.stream_events():
            pass
        assert streamed.final_output
        typed = agents.Agent(name="b", model=model, output_type=City)
        assert isinstance((await agents.Runner.run(typed, "A city.")).final_output, City)


async def test_pydantic_ai_gets_its_output_type_over_responses() -> None:
    async with openai_of(app_of()) as client:
        model = PydanticResponsesModel(MODEL, provider=OpenAIProvider(openai_client=client))
        agent = PydanticAgent(model, output_type=City)
        assert isinstance((await agent.run("Tell me about a city.")).output, City)
        async with agent.run_stream("And another?") as streamed:
            assert isinstance(await streamed.get_output(), City)


async def test_the_sync_client_works_on_a_socket() -> None:
    async with served_rack() as served:

        def use() -> None:
            with openai.OpenAI(api_key="-", base_url=f"{served.url}/v1", max_retries=0) as client:
                answer = client.responses.create(model=MODEL, input=TASK)
                again = client.responses.create(
                    model=MODEL, input="Go on.", previous_response_id=answer.id
                )
                assert again.usage is not None
                assert again.usage.input_tokens_details.cached_tokens > 0
                chat = client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": TASK}]
                )
                assert chat.choices[0].message.content
                text = client.completions.create(model=MODEL, prompt="Once upon a time")
                assert text.choices[0].text

        await anyio.to_thread.run_sync(use)  # noqa: TID251 - a sync client blocks
        await served.wait_until_idle()


async def test_a_client_that_leaves_its_stream_frees_its_kv_and_its_response_is_cancelled() -> None:
    async with served_rack(speed=20.0) as served, openai_client(served) as client:
        stream: Any = await client.responses.create(
            model=MODEL, input=TASK, stream=True, extra_body={"ignore_eos": True},
            max_output_tokens=200_000,
        )  # fmt: skip
        created = await anext(stream)
        await stream.close()
        await served.wait_until_idle()
        with anyio.fail_after(5):
            while (await client.responses.retrieve(created.response.id)).status != "cancelled":
                await anyio.sleep(0.01)


def test_httpx2_is_what_the_clients_use() -> None:
    assert issubclass(openai.DefaultAsyncHttpxClient, httpx2.AsyncClient)
