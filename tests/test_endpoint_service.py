"""What whoever runs the endpoint sees: keys, limits, held turns, metrics and its document."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import anyio
import jsonschema
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from typing_extensions import override

from agent_runtime.errors import BackendError, ConfigError
from agent_runtime.gateway.app import EndpointLimits, Surroundings, create_app
from agent_runtime.gateway.tenants import TenantKeys, read_tenant_keys
from agent_runtime.gateway.turn_stream import HoldTerms
from agent_runtime.turns import TurnRequest
from scheduler.ids import TenantId
from tests.fake_runner import HELLO, FakeRunner, FakeTurn, chat, send
from tests.served_rack import MODEL, openai_client, served_rack
from tests.speaking_clients import anthropic_of, app_of, openai_of

pytestmark = pytest.mark.anyio

KEYS = TenantKeys({TenantId("red"): ["sk-red-0001"], TenantId("blue"): ["sk-blue-001"]})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def guarded(runner: FakeRunner) -> Starlette:
    return create_app(runner, model=MODEL, surroundings=Surroundings(tenants=KEYS))


async def test_only_those_with_a_key_are_let_in_and_told_so_in_their_own_shape() -> None:
    runner = FakeRunner()
    app = guarded(runner)
    async with openai_of(app, api_key="sk-wrong-99") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.chat.completions.create(model=MODEL, messages=HELLO)
        assert refused.value.code == "invalid_api_key"
        assert refused.value.request_id
    async with anthropic_of(app, api_key="sk-wrong-99") as other:
        with pytest.raises(anthropic.AuthenticationError) as denied:
            await other.messages.create(model=MODEL, messages=HELLO, max_tokens=3)
        assert denied.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    assert (await send(app, chat())).status_code == 401
    assert (await send(app, b"", "/health", method="GET")).status_code == 200
    async with openai_of(app, api_key="sk-red-0001") as client:
        await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=3)
    headers = {"x-api-key": "sk-blue-001"}
    body = json.dumps({"messages": HELLO, "max_tokens": 3}).encode()
    assert (await send(app, body, "/v1/messages", headers=headers)).status_code == 200
    assert [request.tenant_id for request in runner.requests] == ["red", "blue"]


async def test_tenants_do_not_meet_though_they_say_the_same() -> None:
    runner = FakeRunner()
    app = guarded(runner)
    red, blue = ({"authorization": f"Bearer {key}"} for key in ("sk-red-0001", "sk-blue-001"))
    for headers in (red, blue):
        answer = await send(app, chat(session_id="a"), headers=headers)
        assert answer.headers["x-session-id"] == "a"
    assert [request.session_id for request in runner.requests] == ["red/a", "blue/a"]
    reply = (await send(app, chat(), headers=red)).json()["choices"][0]["message"]
    await send(app, chat(messages=[*HELLO, reply, *HELLO]), headers=blue)
    await send(app, chat(messages=[*HELLO, reply, *HELLO]), headers=red)
    ids = [str(request.session_id) for request in runner.requests[2:]]
    assert ids[0] == ids[2] != ids[1] == "blue/a"
    listed = await send(app, b"", "/v1/sessions", method="GET", headers=blue)
    assert [card["id"] for card in listed.json()["data"]] == ["a"]
    kept = await send(app, b'{"input": "x"}', "/v1/responses", headers=red)
    path = f"/v1/responses/{kept.json()['id']}"
    assert (await send(app, b"", path, method="GET", headers=blue)).status_code == 404
    assert (await send(app, b"", path, method="GET", headers=red)).status_code == 200


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"expected a table \[tenants\]"),
        ("[tenants", "can't be read"),
        ("[tenants]\nred = 'sk-red-0001'", r"tenants\.red: expected a list"),
        ("[tenants]\nred = ['short']", "key 1: expected 8 or more"),
        ("[tenants]\nred = ['sk-same-001']\nblue = ['sk-same-001']", "is one of red's too"),
        ("[tenants]\n'a/b' = ['sk-red-0001']", "names are letters"),
    ],
)
def test_a_key_file_that_is_none_says_what_is_wrong_and_no_key(
    tmp_path: Path, text: str, match: str
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match) as wrong:
        read_tenant_keys(path)
    assert "sk-" not in str(wrong.value)
    path.write_text("[tenants]\nred = ['sk-red-0001']\n")
    assert read_tenant_keys(path).tenant_of({"x-api-key": "sk-red-0001"}) == "red"


async def test_nothing_of_what_is_said_or_of_keys_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    app = guarded(FakeRunner())
    for key in ("sk-red-0001", "sk-wrong-99"):
        await send(app, chat(), headers={"authorization": f"Bearer {key}"})
    said = caplog.text
    assert "sk-" not in said
    assert HELLO[0]["content"] not in said


class HoldingRunner(FakeRunner):
    """Holds every turn until it is let go, or fails it then."""

    def __init__(self, failure_then: Exception | None = None) -> None:
        super().__init__()
        self.go = anyio.Event()
        self.num_held = 0
        self._failure_then = failure_then

    @override
    @asynccontextmanager
    async def open_turn(self, request: TurnRequest) -> AsyncIterator[FakeTurn]:
        self.num_held += 1
        try:
            await self.go.wait()
        finally:
            self.num_held -= 1
        if self._failure_then is not None:
            raise self._failure_then
        async with super().open_turn(request) as turn:
            yield turn


BODIES: list[Any] = [
    ("/v1/chat/completions", {"messages": HELLO}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/responses", {"input": "x"}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 5}),
]


@pytest.mark.parametrize(("path", "fields"), BODIES)
@pytest.mark.parametrize("fails", [False, True])
async def test_a_held_stream_is_kept_alive_and_ends_as_its_dialect_does(
    path: str, fields: dict[str, Any], fails: bool
) -> None:
    runner = HoldingRunner(BackendError("replica 3 is gone") if fails else None)
    limits = EndpointLimits(hold=HoldTerms(grace_s=0.0, comment_every_s=0.005))
    app = create_app(runner, model=MODEL, limits=limits)
    answers = []

    async def ask() -> None:
        answers.append(await send(app, json.dumps({**fields, "stream": True}).encode(), path))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.sleep(0.05)
        runner.go.set()
    (answer,) = answers
    assert answer.status_code == 200
    assert answer.text.startswith(": held 0 s\n\n: held 0 s\n\n")
    if fails:
        assert "replica 3 is gone" in answer.text
    else:
        assert (
            "\n\n: replica=0; waited_ms=0; expected_cached_tokens=0; reason=new\n\n" in answer.text
        )
    assert runner.num_open == 0


async def test_clients_read_past_the_signs_of_life() -> None:
    runner = HoldingRunner()
    limits = EndpointLimits(hold=HoldTerms(grace_s=0.0, comment_every_s=0.005))
    app = create_app(runner, model=MODEL, limits=limits)
    texts = []

    async def with_openai() -> None:
        async with openai_of(app) as client:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=9, stream=True
            )
            parts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
            texts.append("".join(parts))

    async def with_anthropic() -> None:
        async with anthropic_of(app) as client:
            arguments: Any = {"model": MODEL, "messages": HELLO, "max_tokens": 9}
            async with client.messages.stream(**arguments) as stream:
                texts.append("".join([text async for text in stream.text_stream]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(with_openai)
        tasks.start_soon(with_anthropic)
        await anyio.sleep(0.05)
        assert runner.num_held == 2
        runner.go.set()
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize(("path", "fields"), BODIES)
async def test_within_the_grace_errors_are_statuses_and_the_decision_is_a_header(
    path: str, fields: dict[str, Any]
) -> None:
    body = json.dumps({**fields, "stream": True}).encode()
    failed = await send(app_of(FakeRunner(refusal=BackendError("replica 3 is gone"))), body, path)
    assert failed.status_code == 502
    assert failed.headers["content-type"] == "application/json"
    for asked in (body, json.dumps(fields).encode()):
        answer = await send(app_of(), asked, path)
        assert answer.headers["x-panjiu-decision"] == (
            "replica=0; waited_ms=0; expected_cached_tokens=0; reason=new"
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_its_turn_is_held_withdraws_it(stream: bool) -> None:
    runner = HoldingRunner()
    async with openai_of(create_app(runner, model=MODEL)) as client:
        with anyio.move_on_after(0.1):
            await client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
        with anyio.fail_after(5):
            while runner.num_held:
                await anyio.sleep(0.001)


async def test_more_requests_than_may_be_are_told_when_to_come_back() -> None:
    runner = HoldingRunner()
    app = create_app(runner, model=MODEL, limits=EndpointLimits(max_under_way=2))
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(send, app, chat())
        while runner.num_held < 2:
            await anyio.sleep(0.001)
        async with openai_of(app) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(model=MODEL, messages=HELLO)
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["retry-after"] == "1"
        async with anthropic_of(app) as other:
            with pytest.raises(anthropic.RateLimitError):
                await other.messages.create(model=MODEL, messages=HELLO, max_tokens=3)
        runner.go.set()
    assert (await send(app, chat())).status_code == 200


async def test_metrics_count_turns_tokens_and_replicas() -> None:
    async with served_rack() as served, openai_client(served) as client:
        for _ in range(2):
            await client.chat.completions.create(
                    model=MODEL, messages=HELLO, max_tokens=20,
                    extra_body={"session_id": "a", "ignore_eos": True},
                )  # fmt: skip
        http = client._client
        text = (await http.get(f"{served.url}/metrics")).text
        assert (await http.head(f"{served.url}/metrics")).status_code == 200
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['panjiu_turns_total{dialect="chat",outcome="answered"}'] == "2.0"
    assert float(lines["panjiu_output_tokens_total"]) >= 40
    assert lines["panjiu_held_turns"] == "0.0"
    assert float(lines["panjiu_sessions"]) >= 1
    assert float(lines["panjiu_time_to_first_token_seconds_count"]) == 2
    assert lines['panjiu_replica_running_requests{replica="1"}'] == "0.0"


async def test_a_server_that_stops_is_alive_and_not_ready() -> None:
    async with served_rack() as served, openai_client(served) as client:
        http = client._client
        assert (await http.get(f"{served.url}/ready")).status_code == 200
        assert (await http.get(f"{served.url}/version")).json()["version"]
        served.rack.stop()
        assert (await http.get(f"{served.url}/ready")).status_code == 503
        assert (await http.get(f"{served.url}/health")).status_code == 200


async def test_the_document_has_every_route_and_its_bodies() -> None:
    app = app_of()
    document = (await send(app, b"", "/openapi.json", method="GET")).json()
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {(p, m) for p, methods in document["paths"].items() for m in methods} == routes
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
    assert "panjiu" in schemas["ChatRequest"]["properties"]


async def test_a_wrong_method_is_told_all_the_right_ones() -> None:
    app = app_of()
    for path, methods in [
        ("/v1/sessions", {"GET", "POST"}),
        ("/v1/responses/r", {"GET", "DELETE"}),
    ]:
        answer = await send(app, b"", path, method="PUT")
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == methods


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", "16"), ("n", True), ("stream", "true"), ("temperature", False), ("stream", 1)],
)
async def test_a_field_is_of_the_type_that_the_document_says(field: str, value: object) -> None:
    answer = await send(app_of(), chat(**{field: value}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


async def test_a_whole_number_may_have_a_point() -> None:
    runner = FakeRunner()
    assert (await send(app_of(runner), chat(max_tokens=3.0))).status_code == 200
    assert (await send(app_of(runner), chat(max_tokens=3.5))).status_code == 400


async def test_the_document_says_what_forms_a_field_has_and_how_errors_look() -> None:
    document = (await send(app_of(), b"", "/openapi.json", method="GET")).json()
    schemas, paths = document["components"]["schemas"], document["paths"]
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    read = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/ChatRequest", "components": document["components"]}
    )
    for good in ({"stop": "a"}, {"stop": ["a"]}, {"tool_choice": "auto"}, {"max_tokens": 2.0}):
        read.validate({**body, **good})
    for bad in ({"stop": ""}, {"tool_choice": "any"}, {"prompt_cache_retention": "1h"}):
        assert not read.is_valid({**body, **bad})
    assert not paths["/v1/sessions"]["post"]["requestBody"]["required"]
    for path, shape in [
        ("/v1/chat/completions", "OpenAIError"),
        ("/v1/messages", "AnthropicError"),
    ]:
        answer = await send(app_of(), b"{", path)
        said = paths[path]["post"]["responses"][str(answer.status_code)]["content"]
        assert said["application/json"]["schema"]["$ref"].endswith(f"/{shape}")
        jsonschema.validate(answer.json(), schemas[shape])


async def test_a_conversation_and_a_text_are_cut_as_they_are_counted() -> None:
    runner = FakeRunner()
    app = app_of(runner)
    cut = (await send(app, json.dumps({"messages": HELLO}).encode(), "/tokenize")).json()
    await send(app, chat())
    assert cut["count"] == len(cut["tokens"]) == runner.requests[0].num_prompt_tokens
    asked = json.dumps({"prompt": "def f(x):", "return_token_strs": True}).encode()
    text = (await send(app, asked, "/tokenize")).json()
    assert "".join(text["token_strs"]) == "def f(x):"
    assert (await send(app, b"{}", "/tokenize")).status_code == 400
    assert (await send(app, b'{"tokens": [1]}', "/detokenize")).status_code == 404


async def test_nobody_is_let_in_from_other_pages_by_default() -> None:
    headers = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    answer = await send(app_of(), b"", "/v1/chat/completions", method="OPTIONS", headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
