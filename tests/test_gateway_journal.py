"""What gateways know outlives them, and others know it: on the emulated rack and before engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import httpx2
import openai
import pytest

from agent_runtime.gateway.app import EndpointLimits, Surroundings, create_app
from agent_runtime.gateway.journal import gateway_journal
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal
from agent_runtime.gateway.relay.relay_app import RelayTerms
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.records import open_records
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from scheduler.ids import TenantId
from tests.fake_runner import FakeRunner
from tests.look_alike_rack import MODEL, served_look_alikes
from tests.redis_server import needs_redis, running_redis
from tests.served_engines import gateway_before

pytestmark = pytest.mark.anyio
KEYS = TenantKeys({TenantId("red"): ["sk-red-12345"], TenantId("blue"): ["sk-blue-1234"]})
RED, BLUE = ({"authorization": f"Bearer {key}"} for key in ("sk-red-12345", "sk-blue-1234"))

Life: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]
"""Makes a gateway with the journal of the test, and a client of it."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def rack_life(
    place: str, *, tenants: TenantKeys | None = None, **limits: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_records(place, print) as records:
        around = Surroundings(tenants=tenants, journal=GatewayJournal(records))
        app = create_app(
            FakeRunner(), model=MODEL, limits=EndpointLimits(**limits), surroundings=around
        )
        transport = StreamingAsgiTransport(app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://rack", timeout=None
        ) as client:
            yield client


@asynccontextmanager
async def engines_life(
    place: str, urls: list[str], *, tenants: TenantKeys | None = None, **limits: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_records(place, print) as records:
        terms = RelayTerms(EndpointLimits(**limits), tenants, journal=GatewayJournal(records))
        async with (
            gateway_before(urls, terms=terms) as served,
            httpx2.AsyncClient(base_url=served.url, timeout=30) as client,
        ):
            yield client


@pytest.fixture(params=["file", pytest.param("redis", marks=needs_redis)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "file":
        yield str(tmp_path / "gateway.db")
    else:
        with running_redis() as server:
            yield server.url


@pytest.fixture(params=["rack", "engines"])
async def life(request: pytest.FixtureRequest, place: str) -> AsyncIterator[Life]:
    if request.param == "rack":
        yield partial(rack_life, place)
    else:
        async with served_look_alikes() as served:
            yield partial(engines_life, place, served.urls)


def openai_of(
    client: httpx2.AsyncClient, headers: dict[str, str] | None = None
) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key="-",
        base_url=f"{client.base_url}/v1",
        http_client=client,
        max_retries=0,
        default_headers=headers,
    )


async def said(client: httpx2.AsyncClient, **fields: Any) -> Any:
    return await openai_of(client).responses.create(model=MODEL, max_output_tokens=16, **fields)


async def card(client: httpx2.AsyncClient, name: str, **options: Any) -> dict[str, Any]:
    answer = await client.get(f"/v1/sessions/{name}", **options)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_a_conversation_of_responses_goes_on_in_every_life(life: Life) -> None:
    previous = None
    ids, outputs = [], []
    for turn in range(5):
        async with life() as client:
            answer = await said(client, input=f"turn {turn}", previous_response_id=previous)
            assert answer.status in {"completed", "incomplete"}
            previous = answer.id
            ids.append(answer.id)
            outputs.append(answer.output_text)
            told = (await client.get(f"/v1/responses/{ids[0]}")).json()
            assert told["id"] == ids[0]
            assert told["output"][0]["content"][0]["text"] == outputs[0]
    assert len(set(ids)) == 5
    async with life() as client:
        one_way = await said(client, input="one way", previous_response_id=ids[1])
        answer = await client.post("/v1/responses", json={
            "model": MODEL, "input": "and?", "previous_response_id": ids[4], "stream": True,
        })  # fmt: skip
        assert "response.completed" in answer.text or "response.incomplete" in answer.text
        deleted = await client.delete(f"/v1/responses/{ids[2]}")
        assert deleted.status_code == 200
    async with life() as client:
        assert (await client.get(f"/v1/responses/{ids[2]}")).status_code == 404
        refused = await client.post(
            "/v1/responses", json={"model": MODEL, "input": "x", "previous_response_id": ids[2]}
        )
        assert refused.status_code == 404
        for base in (ids[4], one_way.id):  # that what they go on with is gone takes nothing of them
            assert (await said(client, input="go on", previous_response_id=base)).id


async def test_the_model_is_shown_the_whole_conversation(place: str) -> None:
    """What is taken down is what was added; what comes back is all of it."""
    previous, prompts = None, []
    for turn in range(4):
        async with rack_life(place) as client:
            answer = await said(client, input=f"turn {turn} " * 20, previous_response_id=previous)
            previous = answer.id
            prompts.append(answer.usage.input_tokens)
    async with rack_life(place) as client:  # all in one life
        previous, expected = None, []
        for turn in range(4):
            answer = await said(client, input=f"turn {turn} " * 20, previous_response_id=previous)
            previous = answer.id
            expected.append(answer.usage.input_tokens)
    growth = [b - a for a, b in pairwise(prompts)]
    assert [abs(a - b) < 30 for a, b in zip(prompts, expected, strict=True)] == [True] * 4
    assert min(growth) > 20


async def test_an_item_is_referred_to_in_a_later_life(place: str) -> None:
    async with rack_life(place) as client:
        answer = await said(client, input="Say something.")
        item = answer.output[-1].id
    async with rack_life(place) as client:
        items = [{"type": "item_reference", "id": item}, {"role": "user", "content": "go on"}]
        assert (await said(client, input=items)).status in {"completed", "incomplete"}
        unknown = [{"type": "item_reference", "id": "msg_none"}]
        with pytest.raises(openai.BadRequestError, match="msg_none"):
            await said(client, input=unknown)


async def test_what_was_told_of_sessions_is_known_in_the_next_life(life: Life) -> None:
    async with life() as client:
        made = await client.post("/v1/sessions", json={
            "id": "a/b", "ttl_s": 500, "priority": 3, "parent_session_id": "mother",
        })  # fmt: skip
        assert made.status_code == 201, made.text
        assert (await client.post("/v1/sessions", json={"id": "c"})).status_code == 201
        assert (await client.post("/v1/sessions/a%2Fb/fork", json={"id": "f"})).status_code == 201
        assert (await client.post("/v1/sessions/c/pause")).status_code == 200
        assert (await client.delete("/v1/sessions/f")).status_code == 204
        before = await card(client, "a/b")
        unnamed = (await client.post("/v1/sessions")).json()["id"]
    async with life() as client:
        assert await card(client, "a/b") == before
        assert before["priority"] == 3
        assert before["ttl_s"] == 500
        assert before["parent_session_id"] == "mother"
        assert (await client.get("/v1/sessions/f")).status_code == 404
        names = [one["id"] for one in (await client.get("/v1/sessions")).json()["data"]]
        assert sorted(names) == sorted(["a/b", "c", unnamed])
        again = await client.post("/v1/sessions", json={"id": "c"})
        assert again.status_code == 409, "there is one"
        body = {"messages": [{"role": "user", "content": "hi"}], "session_id": "c", "max_tokens": 2}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 409
        assert (await client.post("/v1/sessions/c/resume")).status_code == 200
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        other = (await client.post("/v1/sessions")).json()["id"]
        assert other != unnamed
    async with life() as client:
        assert (await card(client, "c"))["turns"] == 1


async def test_a_session_that_nobody_named_is_found_by_its_history(life: Life) -> None:
    messages: list[dict[str, str]] = [{"role": "user", "content": "who am I"}]
    names = set()
    for turn in range(4):
        async with life() as client:
            body = {"messages": messages, "max_tokens": 8}
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            names.add(answer.headers["x-session-id"])
            messages += [answer.json()["choices"][0]["message"]]
            messages += [{"role": "user", "content": f"and turn {turn}?"}]
            fresh = await client.post(
                "/v1/chat/completions",
                json={
                    "messages": [{"role": "user", "content": f"another {turn}"}],
                    "max_tokens": 2,
                },
            )
            assert fresh.headers["x-session-id"] not in names
    assert len(names) == 1


async def test_tenants_do_not_meet_in_the_journal(life: Life) -> None:
    async with life(tenants=KEYS) as client:
        body = {"id": "same", "priority": 7}
        assert (await client.post("/v1/sessions", json=body, headers=RED)).status_code == 201
        answer = await client.post(
            "/v1/responses", json={"model": MODEL, "input": "x"}, headers=RED
        )
        response_id = answer.json()["id"]
        item_id = answer.json()["output"][-1]["id"]
    async with life(tenants=KEYS) as client:
        assert (await client.get("/v1/sessions/same", headers=BLUE)).status_code == 404
        assert (await client.get("/v1/sessions", headers=BLUE)).json()["data"] == []
        url = f"/v1/responses/{response_id}"
        assert (await client.get(url, headers=BLUE)).status_code == 404
        assert (await client.delete(url, headers=BLUE)).status_code == 404
        body = {"model": MODEL, "input": "x", "previous_response_id": response_id}
        assert (await client.post("/v1/responses", json=body, headers=BLUE)).status_code == 404
        reference = {"model": MODEL, "input": [{"type": "item_reference", "id": item_id}]}
        refused = await client.post("/v1/responses", json=reference, headers=BLUE)
        assert item_id not in refused.text or refused.status_code == 400
        assert (await card(client, "same", headers=RED))["priority"] == 7
        assert (await client.post("/v1/responses", json=body, headers=RED)).status_code == 200


@needs_redis
@pytest.mark.parametrize("kind", ["rack", "engines"])
async def test_two_gateways_share_what_they_know(kind: str) -> None:
    with running_redis() as server:
        async with served_look_alikes() as served:
            life: Life = partial(rack_life, server.url)
            if kind == "engines":
                life = partial(engines_life, server.url, served.urls)
            async with life() as one, life() as other:
                await _alternate(one, other)


async def _alternate(one: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
    previous = None
    for turn in range(4):
        client = (one, other)[turn % 2]
        answer = await said(
            client, input=f"turn {turn}", previous_response_id=previous,
            extra_headers={"x-session-id": "s"} if not turn else {},
        )  # fmt: skip
        previous = answer.id
    assert (await card(one, "s"))["turns"] == 4
    assert (await card(other, "s"))["turns"] == 4
    body = {"messages": [{"role": "user", "content": "hi"}], "session_id": "s", "max_tokens": 2}
    assert (await one.post("/v1/sessions/s/pause")).status_code == 200
    assert (await other.post("/v1/chat/completions", json=body)).status_code == 409
    assert (await other.post("/v1/sessions/s/resume")).status_code == 200
    assert (await one.post("/v1/chat/completions", json=body)).status_code == 200
    assert (await other.delete("/v1/sessions/s")).status_code == 204
    assert (await one.get("/v1/sessions/s")).status_code == 404
    assert (await one.delete(f"/v1/responses/{previous}")).status_code == 200
    made = {(await client.post("/v1/sessions")).json()["id"] for client in (one, other)}
    assert len(made) == 2


@needs_redis
async def test_turns_run_while_redis_is_gone() -> None:
    with running_redis() as server:
        async with rack_life(server.url) as client:
            first = await said(client, input="hello")
            server.kill()
            body = {"messages": [{"role": "user", "content": "hi"}], "session_id": "s"}
            for _ in range(3):
                answer = await client.post("/v1/chat/completions", json={**body, "max_tokens": 2})
                assert answer.status_code == 200
            second = await said(client, input="go on", previous_response_id=first.id)
            metrics = (await client.get("/metrics")).text
            problems = [line for line in metrics.splitlines() if "journal_problems_total " in line]
            assert float(problems[-1].split()[1]) > 0
            server.start()
            await _until(lambda: _is_known(server.url, second.id))
        async with rack_life(server.url) as client:
            answer = await said(client, input="and on", previous_response_id=second.id)
            assert answer.status in {"completed", "incomplete"}
            assert (await card(client, "s"))["turns"] == 3


@needs_redis
@pytest.mark.parametrize("kind", ["rack", "engines"])
async def test_nothing_counts_as_gone_that_redis_can_only_not_tell(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 404 would end a conversation; who is told to come again finds it."""
    monkeypatch.setattr(gateway_journal, "CATCH_UP_S", 0.5)
    with running_redis() as server:
        async with served_look_alikes() as served, AsyncExitStack() as stack:
            life: Life = partial(rack_life, server.url)
            if kind == "engines":
                life = partial(engines_life, server.url, served.urls)
            one, other = [await stack.enter_async_context(life()) for _ in range(2)]
            answer = await said(one, input="hello", extra_headers={"x-session-id": "s"})
            body = {"model": MODEL, "input": "go on", "previous_response_id": answer.id}
            referring = []
            if kind == "rack":  # engines know of items by themselves
                items = [{"type": "item_reference", "id": answer.output[-1].id}]
                reference = {"model": MODEL, "input": items}
                referring = [partial(other.post, "/v1/responses", json=reference)]
            server.kill()
            asked = [
                partial(other.post, "/v1/responses", json=body),
                partial(other.get, f"/v1/responses/{answer.id}"),
                partial(other.delete, f"/v1/responses/{answer.id}"),
                *referring,
                partial(other.get, "/v1/sessions/s"),
                partial(other.get, "/v1/sessions"),
            ]
            for ask in asked:
                refused = await ask()
                assert refused.status_code == 503, refused.text
                assert refused.headers["retry-after"] == "1"
                assert "the journal can't be read for now" in refused.text
            assert (await one.get("/v1/sessions/s")).status_code == 200, "it is known there"
            assert (await other.post("/v1/sessions", json={"id": "mine"})).status_code == 201
            server.start()

            async def goes_on() -> bool:
                went_on = await other.post("/v1/responses", json=body)
                assert went_on.status_code in {200, 503}
                return went_on.status_code == 200

            await _until(goes_on)
            # What is nowhere is a 404 again once the others have had the time to write.
            await _until(lambda: _is_gone(other, "resp_none"))


async def _is_gone(client: httpx2.AsyncClient, response_id: str) -> bool:
    status = (await client.get(f"/v1/responses/{response_id}")).status_code
    assert status in {404, 503}
    return status == 404


@needs_redis
async def test_an_answer_waits_for_a_redis_that_restarts() -> None:
    with running_redis() as server:
        async with rack_life(server.url) as one, rack_life(server.url) as other:
            server.kill()
            answers = []

            async def ask() -> None:
                answers.append(await said(one, input="hello"))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.sleep(0.3)
                assert not answers
                server.start()
            async with open_records(server.url, print) as records:
                assert await records.read([f"response//{answers[0].id}"]) != [{}]
            body = {"model": MODEL, "input": "go on", "previous_response_id": answers[0].id}
            await _until(lambda: _answers(other, body))


async def _answers(client: httpx2.AsyncClient, body: dict[str, Any]) -> bool:
    return (await client.post("/v1/responses", json=body)).status_code == 200


async def _is_known(url: str, response_id: str) -> bool:
    async with open_records(url, print) as records:
        (found,) = await records.read([f"response//{response_id}"])
        return bool(found)


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(20):
        while not await holds():
            await anyio.sleep(0.05)
