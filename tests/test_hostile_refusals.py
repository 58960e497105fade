"""Single shapes of hostile requests, each with what is answered: refused by name, and forgotten."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.asgi_exchange import AsgiRequest
from agent_runtime.gateway.app import create_app
from agent_runtime.gateway.opening import MAX_VALUES
from agent_runtime.loose_json import MAX_ITEMS
from agent_runtime.prompts.tokeniser import MOST_LETTERS, is_longer, tokenise
from tests.fake_runner import FakeRunner, send
from tests.hostile_gateways import GATEWAYS, MAX_BODY_BYTES, Gateway, Hosted, hosted

CHAT = "/v1/chat/completions"
PROMPTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/responses": {"input": "hello"},
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=sorted(GATEWAYS))
def host(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    with hosted(GATEWAYS[request.param]()) as opened:
        yield opened


@pytest.fixture(scope="module")
def before_an_engine() -> Iterator[Hosted]:
    with hosted(GATEWAYS["engines"]()) as opened:
        yield opened


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1e1", "00000001" + "0" * 5000, "\u0661"])
def test_a_page_has_no_other_length_than_it_may(host: Hosted, limit: str) -> None:
    async def ask(gateway: Gateway) -> None:
        target = b"/v1/sessions?limit=" + limit.encode("utf-8")
        answer = await gateway.ask(AsgiRequest("GET", "http", "t", 80, target, [], b""))
        assert answer.status == 400
        assert answer.json()["error"]["param"] == "limit"

    host.run(ask)


@pytest.mark.parametrize("length", [b"9" * 30, b"9" * 5000, str(MAX_BODY_BYTES + 1).encode()])
def test_a_body_that_is_said_to_be_too_long_is_not_waited_for(host: Hosted, length: bytes) -> None:
    async def ask(gateway: Gateway) -> None:
        headers = [(b"content-length", length)]
        asked = AsgiRequest("POST", "http", "t", 80, CHAT.encode(), headers, b"")
        answer = await gateway.ask(asked)
        assert answer.status == 413
        assert f"limit of {MAX_BODY_BYTES} bytes" in answer.json()["error"]["message"]

    host.run(ask)


@pytest.mark.parametrize("name", [b"[", b"]", b"a@[::1", b"\xff", b"x/v1/messages?"])
def test_no_host_that_is_named_leads_astray(host: Hosted, name: bytes) -> None:
    async def ask(gateway: Gateway) -> None:
        for target, status in ((b"/nowhere", 404), (b"/v1/responses/x", 404), (CHAT.encode(), 400)):
            method = "POST" if status == 400 else "GET"
            asked = AsgiRequest(method, "http", "t", 80, target, [(b"host", name)], b"[]")
            answer = await gateway.ask(asked)
            assert answer.status == status
            assert answer.json()["error"]["message"]

    host.run(ask)


def test_messages_that_are_no_text_are_refused_and_nothing_is_left_of_them(host: Hosted) -> None:
    async def ask(gateway: Gateway) -> None:
        hello = {"role": "user", "content": "hello"}
        for session, known in (("never heard of", False), ("heard of", True)):
            body = {"messages": [hello], "max_tokens": 2, "session_id": session}
            if known:
                assert (await gateway.send("POST", CHAT, body)).status == 200
            before = await gateway.session_ids()
            said = {**body, "messages": [hello, {"role": "user", "content": "?"}]}
            data = json.dumps(said).encode().replace(b"?", b"\xff")
            asked = AsgiRequest("POST", "http", "t", 80, CHAT.encode(), [], data)
            answer = await gateway.ask(asked)
            assert answer.status == 400
            assert "JSON" in answer.json()["error"]["message"]
            assert await gateway.session_ids() == before
            well = data.replace(b"\xff", b"!")
            asked = AsgiRequest("POST", "http", "t", 80, CHAT.encode(), [], well)
            assert (await gateway.ask(asked)).status == 200

    host.run(ask)


@pytest.mark.parametrize("path", PROMPTS)
def test_a_session_whose_first_turn_is_refused_was_none(host: Hosted, path: str) -> None:
    too_long = "1!" * 1_000_000 if host.gateway.kind == "emulated" else "hello"

    async def ask(gateway: Gateway) -> None:
        body = json.loads(json.dumps({**PROMPTS[path], "max_tokens": 2}).replace("hello", too_long))
        if gateway.engine is not None:
            gateway.engine.refuses = 400
        for more in ({}, {"session_id": "refused"}, {"panjiu": {"parent_session_id": "p"}}):
            for streams in (False, True):
                before = await gateway.session_ids()
                answer = await gateway.send("POST", path, {**body, **more, "stream": streams})
                assert answer.status == 400, answer.body
                assert await gateway.session_ids() == before
        if gateway.engine is not None:
            gateway.engine.refuses = None
        well = {**PROMPTS[path], "max_tokens": 16, "session_id": "known"}
        assert (await gateway.send("POST", path, well)).status == 200
        opened = await gateway.send("POST", "/v1/sessions", {"id": "opened"})
        assert opened.status == 201
        if gateway.engine is not None:
            gateway.engine.refuses = 400
        for known in ("known", "opened"):
            refused = await gateway.send("POST", path, {**body, "session_id": known})
            assert refused.status == 400
            assert known in await gateway.session_ids(), "what was there before stays"
        if gateway.engine is not None:
            gateway.engine.refuses = None
        for session_id in await gateway.session_ids():
            assert (await gateway.send("DELETE", f"/v1/sessions/{session_id}")).status == 204
        gateway.check()

    host.run(ask)


def test_of_several_prompts_none_leaves_a_session_if_one_is_refused() -> None:
    async def ask(gateway: Gateway) -> None:
        body = {"prompt": ["fine", "1!" * 1_000_000], "max_tokens": 2}
        assert (await gateway.send("POST", "/v1/completions", body)).status == 400
        assert await gateway.session_ids() == []

    with hosted(GATEWAYS["emulated"]()) as host:
        host.run(ask)


@pytest.mark.parametrize("value", ["a\0b", "a\rb: c", "a\nb", "\x7f", "a\x01"])
def test_headers_that_no_engine_takes_are_refused_here(
    before_an_engine: Hosted, value: str
) -> None:
    async def ask(gateway: Gateway) -> None:
        assert gateway.engine is not None
        num_asked = len(gateway.engine.asked)
        for path, fields in PROMPTS.items():
            answer = await gateway.send("POST", path, fields, x_other=value)
            assert answer.status == 400
            assert "header x-other: control characters" in answer.json()["error"]["message"]
        assert len(gateway.engine.asked) == num_asked

    before_an_engine.run(ask)


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "%2E", "a" * 257, "..%3fx", "a%0d%0ab", "a%23b", "%ff"]
)
def test_no_responses_id_is_another_path_of_an_engine(before_an_engine: Hosted, name: str) -> None:
    async def ask(gateway: Gateway) -> None:
        assert gateway.engine is not None
        for method, path in (
            ("GET", f"/v1/responses/{name}"),
            ("HEAD", f"/v1/responses/{name}"),
            ("POST", f"/v1/responses/{name}/cancel"),
            ("DELETE", f"/v1/responses/{name}"),
        ):
            gateway.engine.paths.clear()
            answer = await gateway.send(method, path)
            assert answer.status == 404
            for asked in gateway.engine.paths:
                segments = asked.split("/")
                assert segments[:3] == ["", "v1", "responses"]
                assert segments[3] not in {"..", ".", ""}
                assert len(segments) == (5 if path.endswith("cancel") else 4)
                assert not set(asked) & set("?#\r\n")

    before_an_engine.run(ask)


def test_nor_is_one_that_is_gone_on_with(before_an_engine: Hosted) -> None:
    async def ask(gateway: Gateway) -> None:
        assert gateway.engine is not None
        gateway.engine.paths.clear()
        for name in ("..", ".", "", "z" * 300):
            fields = {"input": "hello", "previous_response_id": name}
            answer = await gateway.send("POST", "/v1/responses", fields)
            assert answer.status == 404
            assert answer.json()["error"]["param"] == "response_id"
        fields = {"input": "hello", "previous_response_id": "../../metrics?a#b"}
        await gateway.send("POST", "/v1/responses", fields)
        assert gateway.engine.paths == ["/v1/responses/..%2F..%2Fmetrics%3Fa%23b"]

    before_an_engine.run(ask)


FAR_TOO_LONG = ("1!" * 30_000, "\n " * 30_000, "word " * 30_000, "\u00e9" * 90_000)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/tokenize", "/v1/messages/count_tokens", *PROMPTS])
async def test_what_is_far_too_long_is_refused_before_it_is_cut_up(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(FakeRunner(max_context_tokens=1000), model="m")
    cut_up: list[int] = []

    def counting(text: str) -> array[int]:
        cut_up.append(len(text))
        return tokenise(text)

    for module in ("gateway.opening", "gateway.tokenise_route", "prompts.chat_prompt"):
        monkeypatch.setattr(f"agent_runtime.{module}.tokenise", counting)
    fields = PROMPTS.get(path, {"prompt": "hello"} if path == "/tokenize" else PROMPTS[CHAT])
    for text in FAR_TOO_LONG:
        body = json.dumps(fields | {"max_tokens": 2}).replace('"hello"', json.dumps(text))
        answer = await send(app, body.encode(), path)
        assert answer.status_code == 400
        assert "your prompt contains more input tokens" in answer.json()["error"]["message"]
    assert cut_up == []
    assert (await send(app, b"", "/v1/sessions", method="GET")).json()["data"] == []


@given(
    st.lists(st.text("ab1! \n\u00e9\u2003", max_size=120) | st.just(" " * 500), max_size=4),
    st.integers(0, 60),
)
def test_only_what_has_more_tokens_is_called_longer(texts: list[str], most: int) -> None:
    num_tokens = sum(len(tokenise(text)) for text in texts)
    if is_longer(texts, most):
        assert num_tokens > most
    elif num_tokens > most + len(texts):
        assert sum(map(len, texts)) <= MOST_LETTERS * most, "short enough to be cut up"


def test_engines_are_asked_what_is_far_too_long_for_the_gateway(before_an_engine: Hosted) -> None:
    async def ask(gateway: Gateway) -> None:
        for path, fields in PROMPTS.items():
            body = json.loads(json.dumps(fields).replace("hello", "1!" * 200_000))
            answer = await gateway.send("POST", path, {**body, "max_tokens": 16})
            assert answer.status == 200
        gateway.check()

    before_an_engine.run(ask)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("num_messages", [1, 1000, MAX_ITEMS + 1])
def test_more_messages_or_parts_than_any_context_holds_are_refused(
    host: Hosted, path: str, num_messages: int
) -> None:
    num_parts = MAX_ITEMS // num_messages + 1
    part = {"type": "input_text" if path.endswith("responses") else "text", "text": ""}
    content = [part] * num_parts if num_parts > 1 else ""
    said = [{"role": "user", "content": content}] * num_messages
    body = {"max_tokens": 2, "messages": said, "input": said}

    async def ask(gateway: Gateway) -> None:
        before = await gateway.session_ids()
        answer = await gateway.send("POST", path, body)
        assert answer.status == 400
        assert f"more than {MAX_ITEMS:,} objects" in answer.json()["error"]["message"]
        assert await gateway.session_ids() == before

    host.run(ask)


def test_a_body_of_millions_of_values_is_not_read(host: Hosted) -> None:
    async def ask(gateway: Gateway) -> None:
        body = b'{"messages":[' + b"0," * MAX_VALUES + b"0,0]}"
        asked = AsgiRequest("POST", "http", "t", 80, CHAT.encode(), [], body)
        answer = await gateway.ask(asked)
        assert answer.status == 413
        assert "too many values" in answer.json()["error"]["message"]

    host.run(ask)
