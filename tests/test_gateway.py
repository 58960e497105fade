"""The endpoint as clients see it: the openai package and raw HTTP on a real socket."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runtime.errors import BackendError
from agent_runtime.gateway.dialects.chat_wire import ChatRequest
from tests.fake_runner import HELLO, FakeRunner, app_over, chat, send
from tests.served_rack import MODEL, ServedRack, openai_client, served_rack

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def client_of(**kwargs) -> AsyncIterator[tuple[openai.AsyncOpenAI, ServedRack]]:
    async with served_rack(**kwargs) as served, openai_client(served) as client:
        yield client, served


async def test_an_answer_in_one_piece_has_the_length_and_the_usage_asked_for() -> None:
    async with client_of() as (client, served):
        answer = await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=7, extra_body={"ignore_eos": True}
        )
        assert answer.choices[0].finish_reason == "length"
        assert len((answer.choices[0].message.content or "").split()) == 7
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 7
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
        assert answer.created == 1_700_000_000
        await served.wait_until_idle()


async def test_a_stream_says_the_same_as_the_answer_in_one_piece() -> None:
    async with client_of() as (client, _):
        whole = await client.chat.completions.create(model=MODEL, messages=HELLO)
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[0].choices[0].delta.role == "assistant"
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert reasons[-1] == whole.choices[0].finish_reason
        assert not any(reasons[:-1])
        assert whole.usage is not None
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_continuous_usage_counts_up_with_the_tokens() -> None:
    async with client_of() as (client, _):
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={
                "ignore_eos": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            },
        )
        counts = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage]
        assert counts[0] == 0
        assert counts == sorted(counts)
        assert counts[-1] == 9


async def test_a_conversation_hits_the_prefix_its_last_turn_left_behind() -> None:
    async with client_of() as (client, _):
        messages = list(HELLO)
        sessions, cached, known = [], [], 0
        for turn in range(4):
            raw = await client.chat.completions.with_raw_response.create(
                model=MODEL, messages=messages, max_tokens=50
            )
            answer = raw.parse()
            sessions.append(raw.headers["x-session-id"])
            assert answer.usage is not None
            assert answer.usage.prompt_tokens_details is not None
            cached.append(answer.usage.prompt_tokens_details.cached_tokens or 0)
            messages.append({"role": "assistant", "content": answer.choices[0].message.content})
            messages.append({"role": "user", "content": f"Go on with step {turn}, please."})
            known = answer.usage.total_tokens
        assert len(set(sessions)) == 1, "found by its messages alone"
        assert cached[0] == 0
        assert cached == sorted(cached)
        assert cached[3] > 100
        assert known - cached[3] < 150, "all but the last turn's tokens and a partial block"


async def test_the_models_and_health_routes() -> None:
    async with client_of() as (client, served):
        assert [model.id async for model in client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        with pytest.raises(openai.NotFoundError, match=f"Available: {MODEL}"):
            await client.models.retrieve("nobody/nothing")
        async with httpx2.AsyncClient() as http:
            assert (await http.get(f"{served.url}/health")).status_code == 200


async def test_errors_are_the_clients_own_exceptions_and_name_the_field() -> None:
    async with client_of() as (client, _):
        create = client.chat.completions.create
        with pytest.raises(openai.NotFoundError) as unknown:
            await create(model="gpt-9", messages=HELLO)
        assert unknown.value.code == "model_not_found"
        assert unknown.value.param == "model"
        with pytest.raises(openai.BadRequestError) as invalid:
            await create(model=MODEL, messages=HELLO, temperature=3)
        assert invalid.value.param == "temperature"
        assert invalid.value.type == "invalid_request_error"
        with pytest.raises(openai.BadRequestError, match=r"messages\[0\]\.role"):
            await create(model=MODEL, messages=[{"role": "boss", "content": "x"}])  # type: ignore[list-item, misc]
        with pytest.raises(openai.BadRequestError, match=r"n: .*less than or equal to 128"):
            await create(model=MODEL, messages=HELLO, n=129)
        image: Any = [{"type": "image_url", "image_url": {"url": "data:"}}]
        with pytest.raises(openai.BadRequestError, match=r"reads text only.*'image_url'"):
            await create(model=MODEL, messages=[{"role": "user", "content": image}])


async def test_a_prompt_no_replica_holds_is_refused_before_a_stream_starts() -> None:
    async with client_of(max_body_bytes=64 << 20) as (client, served):
        messages: list[Any] = [{"role": "user", "content": "word " * 800_000}]
        with pytest.raises(openai.BadRequestError, match="maximum context length is") as refused:
            await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        assert refused.value.code == "context_length_exceeded"
        assert served.scheduler.num_sessions == 0


async def test_a_client_that_leaves_mid_stream_frees_its_kv() -> None:
    async with client_of(speed=20.0) as (client, served):
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=200_000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert served.rack.kv_active_ratio() > 0
        await stream.close()
        await served.wait_until_idle()


async def test_a_client_that_leaves_before_its_answer_frees_its_kv() -> None:
    async with served_rack(speed=20.0) as served, openai_client(served) as client:
        with anyio.move_on_after(0.3):
            await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=200_000, extra_body={"ignore_eos": True}
            )
        await served.wait_until_idle()


async def test_a_server_that_stops_ends_streams_with_an_error_and_refuses_new_turns() -> None:
    async with client_of(speed=20.0) as (client, served):
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=200_000, stream=True
        )
        await anext(stream)
        served.rack.stop()
        with pytest.raises(openai.APIError, match="shutting down"):
            async for _ in stream:
                pass
        with pytest.raises(openai.InternalServerError, match="shutting down") as refused:
            await client.chat.completions.create(model=MODEL, messages=HELLO)
        assert refused.value.status_code == 503
        await served.wait_until_idle()


async def test_a_server_that_stops_answers_who_still_waits_with_a_503() -> None:
    async with client_of(speed=20.0) as (client, served):

        async def waiting() -> None:
            with pytest.raises(openai.InternalServerError, match="shutting down"):
                await client.chat.completions.create(
                    model=MODEL, messages=HELLO, max_tokens=200_000, extra_body={"ignore_eos": True}
                )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting)
            while served.rack.kv_active_ratio() == 0:
                await anyio.sleep(0.001)
            served.rack.stop()
        await served.wait_until_idle()


async def test_hundreds_of_turns_at_once_all_get_their_own_answer() -> None:
    async with client_of() as (client, served):
        lengths = {}

        async def agent(number: int) -> None:
            answer = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"I am agent {number}."}],
                max_tokens=1 + number % 5,
                extra_body={"ignore_eos": True, "session_id": f"agent-{number}"},
            )
            lengths[number] = len((answer.choices[0].message.content or "").split())

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(agent, number)
        assert lengths == {number: 1 + number % 5 for number in range(200)}
        await served.wait_until_idle()


async def post(body: bytes, path: str = "/v1/chat/completions", **kwargs) -> httpx2.Response:
    return await send(app_over(FakeRunner()), body, path, **kwargs)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"[1]", 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"messages": "hi"}', 400, "messages"),
        (b'{"messages": []}', 400, "messages"),
        (b"[" * 50_000, 400, None),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, None),
        (chat(max_tokens=0), 400, "max_tokens"),
        (chat(max_tokens="many"), 400, "max_tokens"),
        (chat(top_p=float("nan")), 400, "top_p"),
        (chat(session_id=7), 400, "session_id"),
        (chat(session_id="a\nb"), 400, "session_id"),
        (chat(session_id="x" * 300), 400, "session_id"),
        (chat(stream_options={"include_usage": "perhaps"}), 400, "stream_options.include_usage"),
        (b'{"messages": [{"role": "user", "content": "' + b"x" * 200_000 + b'"}]}', 413, None),
    ],
)
async def test_a_bad_body_gets_openais_error_with_the_field(
    body: bytes, status: int, param: str | None
) -> None:
    response = await post(body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert error["param"] == param


async def test_unknown_routes_and_methods_get_openais_error_too() -> None:
    unknown = await post(b"", "/v1/nothing")
    assert unknown.json()["error"]["message"].startswith("POST /v1/nothing")
    wrong = await post(b"", method="GET")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("runner", "body", "status"),
    [
        (FakeRunner(), chat(), 200),
        (FakeRunner(), chat(stream=True), 200),
        (FakeRunner(), chat(max_tokens=0), 400),
        (FakeRunner(refusal=BackendError("no")), chat(), 502),
        (FakeRunner(refusal=ArithmeticError()), chat(), 500),
    ],
)
async def test_every_answer_echoes_the_request_id_if_it_is_fit_to_be(
    runner: FakeRunner, body: bytes, status: int
) -> None:
    app = app_over(runner)
    ids = []
    for sent in ("req-7", "x" * 500, "\x7f", ""):
        answer = await send(app, body, headers={"X-Request-Id": sent}, raising=False)
        assert answer.status_code == status
        ids.append(answer.headers["x-request-id"])
        if status == 200:
            assert f'"id":"chatcmpl-{ids[-1]}"' in answer.text
    assert ids == ["req-7", "1", "2", "3"]


class LostReplicaError(BackendError):
    """A backend's error that the gateway has no row for."""


@pytest.mark.parametrize("stage", ["refusal", "failure"])
@pytest.mark.parametrize("stream", [False, True])
async def test_any_backend_error_is_told_and_its_turn_is_over(stage: str, stream: bool) -> None:
    gone = LostReplicaError("replica 3 is gone")
    runner = FakeRunner(refusal=gone) if stage == "refusal" else FakeRunner(failure=gone)
    answer = await send(app_over(runner), chat(stream=stream, max_tokens=9, ignore_eos=True))
    broken = stage == "failure" and stream
    assert answer.status_code == (200 if broken else 502)
    if broken:
        *_, data, done, _ = answer.text.split("\n\n")
        assert done == "data: [DONE]"
        error = json.loads(data.removeprefix("data: "))["error"]
    else:
        error = answer.json()["error"]
    assert (error["message"], error["type"]) == ("replica 3 is gone", "server_error")
    assert runner.num_open == 0


async def test_what_real_clients_send_is_accepted() -> None:
    body = chat(
        model=MODEL,
        temperature=0.2,
        tool_choice="auto",
        stream_options=None,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        prompt_cache_key="k",
        unknown_field={"x": 1},
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "Call f."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "42"},
        ],
    )
    assert (await post(body)).status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
fields = st.sampled_from(sorted(ChatRequest.model_fields))
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": json_values},
        optional={"tool_calls": json_values, "name": json_values},
    ),
    max_size=3,
)


@given(
    st.binary(max_size=80)
    | st.dictionaries(fields, json_values).map(lambda v: json.dumps(v).encode())
    | st.tuples(messages, st.dictionaries(fields, json_values)).map(
        lambda pair: json.dumps({**pair[1], "messages": pair[0]}).encode()
    )
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_whatever_gets_a_500(body: bytes) -> None:
    response = anyio.run(post, body)
    assert response.status_code in {200, 400, 404}
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
