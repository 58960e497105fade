"""The same client code before the emulated rack and before engines: one endpoint, one behaviour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.served_engines import ServedEngines, gateway_before
from tests.served_rack import MODEL, served_rack

pytestmark = pytest.mark.anyio
KV_TOKENS = 200_000
TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}
ASK: list[Any] = [{"role": "user", "content": "the weather in Oslo, please " * 20}]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Endpoint:
    """One of both, and clients of it."""

    http: httpx2.AsyncClient
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic


@asynccontextmanager
async def endpoint(url: str) -> AsyncIterator[Endpoint]:
    async with (
        httpx2.AsyncClient(base_url=url, timeout=20) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as for_openai,
        anthropic.AsyncAnthropic(base_url=url, api_key="-", max_retries=0) as for_anthropic,
    ):
        yield Endpoint(http, for_openai, for_anthropic)


@asynccontextmanager
async def both(num_engines: int = 1) -> AsyncIterator[tuple[Endpoint, Endpoint, ServedEngines]]:
    """Open the emulated rack, and the gateway before that rack as if it were an engine."""
    async with (
        served_rack() as rack,
        served_rack() as another,
        gateway_before([rack.url, another.url][:num_engines], kv_tokens=KV_TOKENS) as served,
        endpoint(rack.url) as direct,
        endpoint(served.url) as relayed,
    ):
        yield direct, relayed, served


def forms(value: Any, place: str = "") -> dict[str, set[str]]:
    """Return the types of everything in a value, by place; a list is one place, null no type.

    So that it does not matter in how many chunks a reply came.
    """
    if isinstance(value, dict):
        members = [forms(member, f"{place}.{name}") for name, member in value.items()]
    elif isinstance(value, list):
        members = [forms(member, f"{place}[]") for member in value]
    else:
        return {place: set() if value is None else {type(value).__name__}}
    found: dict[str, set[str]] = {}
    for member in members:
        for where, types in member.items():
            found.setdefault(where, set()).update(types)
    return found


def assert_alike(one: Any, other: Any) -> None:
    """Compare forms; what was null all along in one of them may be anything in the other."""
    ones, others = forms(one), forms(other)
    assert ones.keys() == others.keys()
    for place, types in ones.items():
        if types and others[place]:
            assert types == others[place], place


async def chat(at: Endpoint, *, stream: bool) -> Any:
    function = {"name": "weather", "parameters": TOOL}
    asked: Any = {
        "model": MODEL,
        "messages": ASK,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "max_tokens": 64,
        "seed": 3,
    }
    if not stream:
        return (await at.openai.chat.completions.create(**asked)).model_dump(mode="json")
    asked["stream_options"] = {"include_usage": True}
    chunks = await at.openai.chat.completions.create(**asked, stream=True)
    return [chunk.model_dump(mode="json") async for chunk in chunks]


async def completion(at: Endpoint, *, stream: bool) -> Any:
    asked: Any = {"model": MODEL, "prompt": "def main():", "max_tokens": 24, "seed": 3}
    if not stream:
        return (await at.openai.completions.create(**asked)).model_dump(mode="json")
    chunks = await at.openai.completions.create(**asked, stream=True)
    return [chunk.model_dump(mode="json") async for chunk in chunks]


async def message(at: Endpoint, *, stream: bool) -> Any:
    asked: Any = {
        "model": MODEL,
        "messages": ASK,
        "tools": [{"name": "weather", "input_schema": TOOL}],
        "tool_choice": {"type": "any"},
        "max_tokens": 64,
        "extra_body": {"seed": 3},
    }
    if not stream:
        return (await at.anthropic.messages.create(**asked)).model_dump(mode="json")
    events = await at.anthropic.messages.create(**asked, stream=True)
    return [event.model_dump(mode="json") async for event in events]


async def response(at: Endpoint, *, stream: bool) -> Any:
    asked: Any = {"model": MODEL, "input": ASK, "max_output_tokens": 48, "extra_body": {"seed": 3}}
    if not stream:
        return (await at.openai.responses.create(**asked)).model_dump(mode="json")
    events = await at.openai.responses.create(**asked, stream=True)
    return [event.model_dump(mode="json") async for event in events]


@pytest.mark.parametrize("ask", [chat, completion, message, response])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_dialect_answers_in_the_same_form(ask: Any, *, stream: bool) -> None:
    async with both() as (direct, relayed, served):
        assert_alike(await ask(relayed, stream=stream), await ask(direct, stream=stream))
        metrics = (await relayed.http.get("/metrics")).text
        assert 'outcome="answered"} 1.0' in metrics
        assert "panjiu_output_tokens_total 0.0" not in metrics
        assert not any(slot.turns for slot in served.servers.fleet.slots)


async def test_what_is_beside_turns_has_the_same_form() -> None:
    async with both() as (direct, relayed, _):
        for at in (direct, relayed):
            assert [model.id async for model in at.openai.models.list()] == [MODEL]
            assert [model.id async for model in at.anthropic.models.list()] == [MODEL]
            counted = await at.anthropic.messages.count_tokens(model=MODEL, messages=ASK)
            assert counted.input_tokens > 100
            tokens = (await at.http.post("/tokenize", json={"prompt": "a b c"})).json()
            assert tokens["count"] == 3
            assert (await at.http.get("/version")).status_code == 200
            assert (await at.http.get("/health")).json() == {"status": "ok"}
            assert (await at.http.get("/ready")).json() == {"status": "ready"}
        ours, theirs = [(await at.http.get("/openapi.json")).json() for at in (relayed, direct)]
        assert set(ours["paths"]) == {*theirs["paths"], "/detokenize"}
        assert (await relayed.http.post("/detokenize", json={"tokens": [1]})).status_code == 404


async def test_errors_have_the_same_form_in_every_dialect() -> None:
    bad: list[tuple[str, Any]] = [
        ("/v1/chat/completions", {"model": "other", "messages": ASK}),
        ("/v1/messages", {"model": "other", "messages": ASK, "max_tokens": 1}),
        ("/v1/responses", {"model": "other", "input": "a"}),
        ("/v1/chat/completions", {"messages": 3}),
        ("/v1/messages", {"model": MODEL, "messages": ASK}),
        ("/v1/responses", {"input": "a", "panjiu": {"lease": 3}}),
        ("/v1/chat/completions", {"messages": ASK, "session_id": " "}),
        ("/v1/chat/completions", {"messages": ASK, "prompt_cache_retention": "1h"}),
        ("/v1/nothing", {}),
    ]
    async with both() as (direct, relayed, _):
        for path, body in bad:
            ours, theirs = [await at.http.post(path, json=body) for at in (relayed, direct)]
            assert ours.status_code == theirs.status_code, (path, body, ours.text)
            assert forms(ours.json()) == forms(theirs.json())
            assert 400 <= ours.status_code < 500
        for at in (direct, relayed):
            with pytest.raises(openai.NotFoundError):
                await at.openai.responses.retrieve("resp_unknown")
            with pytest.raises(openai.NotFoundError):
                await at.openai.responses.create(
                    model=MODEL, input="a", previous_response_id="resp_unknown"
                )


async def test_sessions_are_told_of_and_steered_alike() -> None:
    async with both() as (direct, relayed, _):
        seen: list[list[Any]] = []
        for at in (direct, relayed):
            http, cards = at.http, []
            made = await http.post("/v1/sessions", json={"id": "s", "priority": -3})
            assert made.status_code == 201
            body = {"messages": ASK, "max_tokens": 8, "session_id": "s"}
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.headers["x-session-id"] == "s"
            assert answer.headers["x-panjiu-decision"].startswith("replica=")
            for verb, given in (("fork", {"id": "t"}), ("pause", {}), ("resume", {})):
                told = await http.post(f"/v1/sessions/s/{verb}", json=given)
                cards.append(forms(told.json()))
                if verb == "pause":
                    held = await http.post("/v1/chat/completions", json=body)
                    assert held.status_code == 409
            cards.append(forms((await http.get("/v1/sessions/s")).json()))
            forked = await http.post("/v1/chat/completions", json={**body, "session_id": "t"})
            assert forked.status_code == 200
            hinted = await http.post("/v1/sessions/t/hint", json={"expected_tool_s": 9})
            assert hinted.json()["gap"]["expected_s"] == 9
            assert len((await http.get("/v1/sessions")).json()["data"]) == 2
            assert (await http.delete("/v1/sessions/s")).status_code == 204
            assert (await http.get("/v1/sessions/s")).status_code == 404
            seen.append(cards)
        assert seen[0] == seen[1]


async def test_a_response_goes_on_in_its_session_wherever_it_is_kept() -> None:
    async with both(num_engines=2) as (direct, relayed, _):
        for at in (direct, relayed):
            client = at.openai.responses
            first = await client.create(model=MODEL, input=ASK, max_output_tokens=32)
            assert (await client.retrieve(first.id)).id == first.id
            more: Any = {"model": MODEL, "input": "and tomorrow?", "max_output_tokens": 32}
            answer = await client.with_raw_response.create(**more, previous_response_id=first.id)
            second = answer.parse()
            assert second.usage is not None
            assert first.usage is not None
            assert second.usage.input_tokens > first.usage.total_tokens
            assert second.usage.input_tokens_details.cached_tokens > 0
            assert "reason=home" in answer.headers["x-panjiu-decision"]
            stream = await client.create(**more, previous_response_id=second.id, stream=True)
            last = [event async for event in stream][-1]
            assert last.type in {"response.completed", "response.incomplete"}
            await client.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                await client.create(**more, previous_response_id=first.id)


async def test_a_response_that_its_engine_forgot_is_sent_whole() -> None:
    async with both() as (direct, relayed, _):
        client = relayed.openai.responses
        first = await client.create(model=MODEL, input=ASK, max_output_tokens=32)
        await direct.openai.responses.delete(first.id)
        assert (await client.retrieve(first.id)).output == first.output
        for _ in range(2):
            first = await client.create(
                model=MODEL, input="and?", max_output_tokens=32, previous_response_id=first.id
            )
            assert first.previous_response_id is None
            assert first.usage is not None
            assert first.usage.input_tokens > 150


async def test_a_conversation_without_a_key_is_known_by_its_messages_in_every_dialect() -> None:
    async with both() as (direct, relayed, _):
        for at in (direct, relayed):
            messages: list[Any] = [{"role": "user", "content": "plan the day " * 30}]
            found = set()
            for _ in range(3):
                asked = at.anthropic.messages.with_raw_response.create
                answer = await asked(model=MODEL, messages=messages, max_tokens=64)
                found.add(answer.headers["x-session-id"])
                content = (await answer.parse()).content
                messages.append({"role": "assistant", "content": content})
                messages.append({"role": "user", "content": "go on"})
            assert len(found) == 1
