"""Whose KV a prompt finds: its own tenant's, with the same salt."""

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.backends.kv_event_wire import StoredContent, wire_events
from agent_runtime.cli.main import main
from agent_runtime.gateway.app import Surroundings, create_app
from agent_runtime.gateway.kv_salt import kv_salt
from agent_runtime.gateway.relay.relay_app import RelayTerms
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.prompts.chat_prompt import PromptMemory, RenderedMessage
from hw_model.engine.kv_events import KvEventLog
from scheduler.ids import TenantId
from tests.fake_runner import FakeRunner, chat, send
from tests.lookalike_engine import LookalikeEngine
from tests.served_engines import chat_body, served_engines

pytestmark = pytest.mark.anyio

KEYS: dict[TenantId, list[str]] = {
    TenantId("red"): ["sk-red-12345"],
    TenantId("blue"): ["sk-blue-1234"],
}
LONG = [{"role": "user", "content": "what everybody asks " * 40}]
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def headers_of(tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[TenantId(tenant)][0]}"}


def body_of(path: str, **more: Any) -> bytes:
    text = LONG[0]["content"]
    prompts: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": text},
        "/v1/responses": {"input": text},
    }
    return json.dumps({"max_tokens": 3, **prompts.get(path, {"messages": LONG}), **more}).encode()


async def first_blocks(path: str, *, share_kv: bool = False) -> list[int]:
    """Have red, blue, red with a salt, blue with the same, and red again ask the same."""
    runner = FakeRunner()
    tenants = TenantKeys(KEYS, share_kv=share_kv)
    app = create_app(runner, model="m", surroundings=Surroundings(tenants=tenants))
    for tenant, more in (
        ("red", {}),
        ("blue", {}),
        ("red", {"cache_salt": "s"}),
        ("blue", {"cache_salt": "s"}),
        ("red", {}),
    ):
        answer = await send(app, body_of(path, **more), path, headers=headers_of(tenant))
        assert answer.status_code == 200, answer.text
    return [request.block_hashes[0] for request in runner.requests]


@pytest.mark.parametrize("path", PATHS)
async def test_tenants_share_no_block_though_they_ask_the_same(path: str) -> None:
    red, blue, red_salted, blue_salted, again = await first_blocks(path)
    assert red == again
    assert len({red, blue, red_salted, blue_salted}) == 4


@pytest.mark.parametrize("path", PATHS)
async def test_tenants_share_where_they_are_let(path: str) -> None:
    red, blue, red_salted, blue_salted, again = await first_blocks(path, share_kv=True)
    assert red == blue == again != red_salted == blue_salted


async def test_an_empty_salt_is_refused_by_name() -> None:
    app = create_app(FakeRunner(), model="m")
    refused = await send(app, chat(cache_salt=""))
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "cache_salt"


async def test_engines_get_a_salt_that_no_other_tenant_can_ask_with() -> None:
    engine = LookalikeEngine()
    terms = RelayTerms(tenants=TenantKeys(KEYS))
    async with (
        served_engines([engine], terms=terms) as served,
        httpx2.AsyncClient(base_url=served.url) as client,
    ):
        salts = []
        for tenant in ("red", "blue", "red"):
            answer = await client.post(PATHS[0], json=chat_body(), headers=headers_of(tenant))
            assert answer.status_code == 200
            salts.append(engine.asked[-1]["cache_salt"])
        assert salts[0] == salts[2] != salts[1]
        stolen = chat_body(cache_salt=salts[0])
        await client.post(PATHS[0], json=stolen, headers=headers_of("blue"))
        assert engine.asked[-1]["cache_salt"] not in salts
        streamed = chat_body(stream=True)
        await client.post(PATHS[0], json=streamed, headers=headers_of("red"))
        assert engine.asked[-1]["cache_salt"] == salts[0]


async def test_without_tenants_engines_get_what_was_given() -> None:
    engine = LookalikeEngine()
    async with (
        served_engines([engine]) as served,
        httpx2.AsyncClient(base_url=served.url) as client,
    ):
        await client.post(PATHS[0], json=chat_body())
        assert "cache_salt" not in engine.asked[-1]
        await client.post(PATHS[0], json=chat_body(cache_salt="mine"))
        assert engine.asked[-1]["cache_salt"] == "mine"


@given(st.text(), st.text(), st.none() | st.text(), st.none() | st.text())
def test_salts_are_as_different_as_those_who_ask(
    one: str, other: str, given_one: str | None, given_other: str | None
) -> None:
    first = kv_salt(SessionKeys(TenantId(one), cache_salt=given_one), is_shared=False)
    second = kv_salt(SessionKeys(TenantId(other), cache_salt=given_other), is_shared=False)
    same = one == other and (given_one or "") == (given_other or "")
    if one and other:
        assert (first == second) == same


@given(st.lists(st.sampled_from([None, "a", "b"]), max_size=6))
def test_a_memory_is_as_fresh_whatever_salts_it_had(salts: list[str | None]) -> None:
    messages = [RenderedMessage("user", "word " * 60), RenderedMessage("user", "more " * 9)]
    memory = PromptMemory(16)
    for salt in salts:
        memory.open_prompt(messages, salt)
        fresh = PromptMemory(16)
        fresh.open_prompt(messages, salt)
        assert memory.hashes() == fresh.hashes() == memory.copy().hashes()


def test_events_tell_the_salt_with_the_first_block_as_vllm_does() -> None:
    log = KvEventLog()
    log.stored([1, 2], None)
    content = StoredContent([5, 6, 7, 8], None, "salt")
    (event,) = wire_events(log.take(), block_size_tokens=2, content_of=lambda _: content)
    assert event.extra_keys == [("salt",), None]  # type: ignore[union-attr]


def test_sharing_without_tenants_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--share-kv", "--port", "0"]) == 2
    assert "--share-kv" in capsys.readouterr().err
