"""What the endpoint does around turns that run on engines: tenants, limits, hints, metrics."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.gateway.relay.relay_app import RelayTerms
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.gateway.turn_stream import HoldTerms
from scheduler.events import GapCause
from scheduler.ids import SessionId, TenantId
from tests.lookalike_engine import LookalikeEngine
from tests.served_engines import ServedEngines, chat_body, served_engines, streamed, until

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
KEYS = TenantKeys({TenantId("red"): ["sk-red-12345"], TenantId("blue"): ["sk-blue-1234"]})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client_of(served: ServedEngines, key: str = "") -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(base_url=served.url, timeout=20, headers=headers)


def session_of(served: ServedEngines, name: str) -> Any:
    return served.service.scheduler._sessions[SessionId(name)]


async def metrics_of(client: httpx2.AsyncClient) -> dict[tuple[str, ...], float]:
    text = (await client.get("/metrics")).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_tenants_do_not_meet_and_their_keys_stay_here() -> None:
    engine = LookalikeEngine()
    async with (
        served_engines([engine], terms=RelayTerms(tenants=KEYS)) as served,
        client_of(served, "sk-red-12345") as red,
        client_of(served, "sk-blue-1234") as blue,
        client_of(served) as nobody,
    ):
        for path in (CHAT, "/detokenize", "/tokenize", "/v1/responses/r", "/v1/sessions"):
            refused = await nobody.request("GET" if "/r" in path else "POST", path)
            assert refused.status_code == 401
        assert (await nobody.get("/metrics")).status_code == 200
        for client in (red, blue):
            answer = await client.post(CHAT, json=chat_body(session_id="same"))
            assert answer.headers["x-session-id"] == "same"
            assert [s["id"] for s in (await client.get("/v1/sessions")).json()["data"]] == ["same"]
        assert [body["session_id"] for body in engine.asked] == ["red/same", "blue/same"]
        assert not any("sk-" in str(headers) for headers in engine.headers)
        messages: list[Any] = [{"role": "user", "content": "who am I"}]
        first = (await red.post(CHAT, json={"messages": messages})).json()
        messages += [first["choices"][0]["message"], {"role": "user", "content": "go on"}]
        found = [await c.post(CHAT, json={"messages": messages}) for c in (red, blue)]
        assert [answer.headers["x-session-id"] for answer in found] == ["found-1", "found-2"]
        assert (await blue.get("/v1/responses/resp_of_red")).status_code == 404
        assert engine.asked[-1]["messages"] == messages  # that one never got there


async def test_more_requests_than_may_be_get_429_until_others_have_ended() -> None:
    engine = LookalikeEngine()
    engine.faults.token_s = 0.02
    terms = RelayTerms(EndpointLimits(max_under_way=1))
    async with served_engines([engine], terms=terms) as served, client_of(served) as client:
        async with client.stream(
            "POST", CHAT, json=chat_body(stream=True, max_tokens=5000)
        ) as response:
            chunks = response.aiter_bytes()
            await anext(chunks)
            refused = await client.post(CHAT, json=chat_body())
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
        await until(lambda: not engine.num_running)
        assert (await client.post(CHAT, json=chat_body())).status_code == 200


async def test_what_callers_say_of_their_sessions_reaches_the_scheduler() -> None:
    engine = LookalikeEngine()
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    async with served_engines([engine]) as served, client_of(served) as client:
        await client.post(CHAT, json=chat_body(session_id="parent", tools=tools))
        extension = {
            "expected_tool_s": 40, "progress": 0.5, "parent_session_id": "parent", "lease_s": 9,
            "deadline_s": 1000, "priority": -7,
        }  # fmt: skip
        body = chat_body(session_id="a", tools=tools, panjiu=extension)
        assert (await client.post(CHAT, json=body)).status_code == 200
        gap = session_of(served, "a").gap
        assert (gap.cause, gap.tools) == (GapCause.TOOL, ("look_up",))
        assert (gap.expected_s, gap.lease_s) == (20.0, 9.0)
        assert session_of(served, "parent").gap.cause is GapCause.CHILDREN
        assert engine.asked[-1]["panjiu"] == extension
        headers = {"x-panjiu-lease-s": "30", "x-panjiu-expected-tool-s": "3"}
        await streamed(client, CHAT, chat_body(session_id="b", tools=tools))
        assert session_of(served, "b").gap.tools == ()  # its stream called none
        await client.post(CHAT, json=chat_body(session_id="c"), headers=headers)
        gap = session_of(served, "c").gap
        assert (gap.cause, gap.expected_s, gap.lease_s) == (GapCause.TOOL, 3.0, 30.0)
        body = chat_body(session_id="d", prompt_cache_retention="24h")
        await client.post(CHAT, json=body)
        assert session_of(served, "d").gap.lease_s == 86_400
        refused = await client.post(CHAT, json=chat_body(panjiu={"lease": 1}))
        assert refused.json()["error"]["param"] == "panjiu.lease"
        refused = await client.post(CHAT, json=chat_body(), headers={"x-panjiu-priority": "high"})
        assert refused.json()["error"]["param"] == "x-panjiu-priority"


async def test_a_prompt_cache_key_tells_conversations_that_begin_alike_apart() -> None:
    async with served_engines([LookalikeEngine()]) as served, client_of(served) as client:
        found: dict[str, list[str]] = {}
        for key in ("one", "two", "one"):
            answer = await client.post(CHAT, json=chat_body(prompt_cache_key=key))
            found.setdefault(key, []).append(answer.headers["x-session-id"])
        answer = await client.post(CHAT, json=chat_body(prompt_cache_key="two"))
        messages = [*chat_body()["messages"], answer.json()["choices"][0]["message"]]
        messages.append({"role": "user", "content": "on"})
        for key in ("one", "two"):
            body = {"messages": messages, "prompt_cache_key": key}
            found[key].append((await client.post(CHAT, json=body)).headers["x-session-id"])
        assert not set(found["one"]) & set(found["two"])


async def test_metrics_tell_of_engines_and_of_what_was_tried_again() -> None:
    engines = [LookalikeEngine(salt=1), LookalikeEngine(salt=2)]
    async with served_engines(engines) as served, client_of(served) as client:
        for engine in engines:
            engine.faults.die_after_tokens = 5
        engines[0].dies = engines[1].dies = lambda: sum(len(e.asked) for e in engines) == 1
        await streamed(client, CHAT, chat_body())
        before = sum(len(engine.asked) for engine in engines)
        for engine in engines:
            engine.faults.die_after_tokens = None
        engines[0].faults.status = 503
        for number in range(6):
            await client.post(CHAT, json=chat_body(session_id=f"s{number}"))
        num_busy = sum(len(engine.asked) for engine in engines) - before - 6
        told = await metrics_of(client)
        assert told["panjiu_resumed_turns_total",] == 1
        assert told["panjiu_retried_calls_total",] == num_busy
        assert told["panjiu_turns_total", "chat", "answered"] == 7
        assert told["panjiu_output_tokens_total",] == 7 * 8
        assert told["panjiu_sessions",] == 7
        assert told["panjiu_time_to_first_token_seconds_count",] == 1
        assert told["panjiu_hold_time_seconds_count",] == 7
        assert told["panjiu_held_turns",] == 0
        urls = [slot.address.url for slot in served.servers.fleet.slots if slot.address]
        assert told["panjiu_engine_state", "1", "up", urls[1]] == 1
        assert told["panjiu_engine_breaker_state", "1", "closed"] == 1
        assert told["panjiu_replica_kv_usage_ratio", "0"] == 0.25
        assert ("panjiu_engine_turns", "2") not in told  # no engine is in that slot
        failures = told["panjiu_engine_failures_total", "0"]
        assert failures + told["panjiu_engine_failures_total", "1"] == num_busy + 1


async def test_a_stream_that_waits_for_long_is_kept_alive_and_tells_where_it_runs() -> None:
    engine = LookalikeEngine()
    terms = RelayTerms(EndpointLimits(hold=HoldTerms(grace_s=0.02, comment_every_s=0.02)))
    async with served_engines([engine], terms=terms) as served, client_of(served) as client:
        engine.faults.first_byte_s = 0.2
        data = await streamed(client, CHAT, chat_body())
        assert data.startswith(b": held 0 s\n\n")
        assert b"\n\n: replica=0; waited_ms=" in data
        assert data.endswith(b"data: [DONE]\n\n")
        engine.faults.status = 400
        data = await streamed(client, CHAT, chat_body())
        error = data.split(b"\n\n")[-3]
        assert json.loads(error.removeprefix(b"data: "))["error"]["message"] == "as told"


@pytest.mark.parametrize(
    ("path", "asked", "end"),
    [
        ("/v1/messages", {"messages": [], "max_tokens": 3}, "error"),
        ("/v1/responses", {"input": "go"}, "response.failed"),
    ],
)
async def test_a_reply_that_breaks_off_ends_with_the_error_of_its_dialect(
    path: str, asked: dict[str, Any], end: str
) -> None:
    engines = [LookalikeEngine(salt=1), LookalikeEngine(salt=2)]
    async with served_engines(engines) as served, client_of(served) as client:
        data = await streamed(client, path, asked)
        *_, last, rest = data.split(b"\n\n")
        assert rest == b""
        kind, _, event = last.partition(b"\ndata: ")
        assert kind == b"event: " + end.encode()
        told = json.loads(event)
        error = told.get("error") or told["response"]["error"]
        assert "lost" in error["message"]
        assert sum(len(engine.asked) for engine in engines) == 1
        if path == "/v1/responses":
            assert told["sequence_number"] == 2
            assert told["response"]["status"] == "failed"
            kept = (await client.get("/v1/responses/resp_1")).json()
            assert kept["status"] == "failed"


async def test_messages_carry_session_and_priority_in_headers_and_all_else_untouched() -> None:
    engine = LookalikeEngine()
    async with served_engines([engine], policy="plas") as served, client_of(served) as client:
        asked = {
            "messages": [{"role": "user", "content": [{"type": "image", "source": {"a": 1}}]}],
            "max_tokens": 3, "session_id": "é", "cache_control": {"type": "ephemeral", "ttl": "1h"},
        }  # fmt: skip
        await streamed(client, "/v1/messages", asked)
        assert engine.asked == [{**asked, "stream": True}]
        assert engine.headers[0]["x-session-id"] == "%C3%A9"
        assert session_of(served, "é").gap.lease_s == 3600


async def test_a_client_that_leaves_before_the_first_byte_has_its_turn_withdrawn() -> None:
    engine = LookalikeEngine()
    engine.faults.first_byte_s = 5.0
    async with served_engines([engine]) as served, client_of(served) as client:
        for stream in (True, False):
            with anyio.move_on_after(0.1):
                await client.post(CHAT, json=chat_body(stream=stream))
        await until(lambda: not served.servers.fleet.slots[0].turns)
        told = await metrics_of(client)
        assert told["panjiu_turns_total", "chat", "aborted"] == 2
