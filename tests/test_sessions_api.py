"""Sessions as clients open, look at, hint about, fork, pause and close them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import openai
import pytest

from agent_runtime.gateway.client_hints import client_hints
from agent_runtime.gateway.session_keys import Caller, session_keys
from scheduler.events import GapCause
from tests.fake_runner import HELLO, FakeRunner, app_over, chat, send
from tests.served_rack import MODEL, ServedRack, openai_client, served_rack

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def http_of(served: ServedRack) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=served.url) as http:
        yield http


async def test_a_session_is_opened_used_looked_at_and_closed() -> None:
    async with served_rack() as served, openai_client(served) as client, http_of(served) as http:
        made = await http.post("/v1/sessions", json={"id": "agent 1", "ttl_s": 60, "priority": 2})
        assert (made.status_code, made.json()["state"]) == (201, "new")
        answers = [
            await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=20, extra_body={"session_id": "agent 1"}
            )
            for _ in range(2)
        ]
        card = (await http.get("/v1/sessions/agent%201")).json()
        assert card["state"] == "tool_gap"
        assert card["turns"] == 2
        assert card["home_replica"] in {0, 1}
        assert card["gap"]["cause"] == "human"
        usage = answers[1].usage
        assert usage is not None
        assert card["context_tokens"] == usage.total_tokens
        assert card["prompt_tokens"] == 2 * usage.prompt_tokens
        assert (await http.delete("/v1/sessions/agent%201")).status_code == 204
        assert (await http.get("/v1/sessions/agent%201")).status_code == 404
        assert served.scheduler.num_sessions == 0


async def test_the_state_tells_a_turn_that_runs() -> None:
    async with (
        served_rack(speed=20.0) as served, openai_client(served) as client, http_of(served) as http,
    ):  # fmt: skip
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=100_000, stream=True,
            extra_body={"session_id": "a", "ignore_eos": True},
        )  # fmt: skip
        await anext(stream)
        assert (await http.get("/v1/sessions/a")).json()["state"] == "running"
        hint = await http.post("/v1/sessions/a/hint", json={"expected_tool_s": 3})
        assert hint.status_code == 409
        assert "in no tool gap" in hint.json()["error"]["message"]
        await stream.close()
        await served.wait_until_idle()


async def test_a_hint_while_the_tool_runs_reaches_the_scheduler() -> None:
    async with served_rack() as served, openai_client(served) as client, http_of(served) as http:
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=HELLO, max_tokens=20
        )
        path = f"/v1/sessions/{raw.headers['x-session-id']}"
        told = await http.post(f"{path}/hint", json={"expected_tool_s": 90})
        assert told.json()["gap"]["expected_s"] == 90
        half = (await http.post(f"{path}/hint", json={"progress": 0.5})).json()["gap"]
        assert half["expected_s"] == pytest.approx(2 * half["elapsed_s"], rel=0.5)
        for wrong in ({}, {"progress": 2}, {"progress": 0.5, "expected_tool_s": 1}, {"eta": 1}):
            refused = await http.post(f"{path}/hint", json=wrong)
            assert refused.status_code == 400


async def test_a_paused_session_gets_no_turns_until_it_is_resumed() -> None:
    async with served_rack() as served, openai_client(served) as client, http_of(served) as http:
        arguments: Any = {
            "model": MODEL, "messages": HELLO, "max_tokens": 5, "extra_body": {"session_id": "a"},
        }  # fmt: skip
        await client.chat.completions.create(**arguments)
        assert (await http.post("/v1/sessions/a/pause")).json()["state"] == "paused"
        assert served.scheduler.num_sessions == 0, "its KV may be given up"
        with pytest.raises(openai.ConflictError, match="POST /v1/sessions/a/resume"):
            await client.chat.completions.create(**arguments)
        assert (await http.post("/v1/sessions/a/resume")).json()["state"] == "new"
        await client.chat.completions.create(**arguments)
        assert served.scheduler.num_sessions == 1


async def test_a_fork_begins_as_its_origin_and_goes_its_own_way() -> None:
    runner = FakeRunner()
    app = app_over(runner)
    long = [{"role": "user", "content": "word " * 100}]
    await send(app, chat(messages=long, session_id="a"))
    forked = await send(app, b'{"id": "b"}', "/v1/sessions/a/fork")
    assert forked.status_code == 201
    assert forked.json()["forked_from"] == "a"
    await send(app, chat(messages=[*long, *HELLO], session_id="b"))
    first, second = runner.requests
    assert (first.session_id, second.session_id) == ("a", "b")
    assert second.block_hashes[:6] == first.block_hashes[:6]
    again = await send(app, b'{"id": "b"}', "/v1/sessions/a/fork")
    assert again.status_code == 409
    assert (await send(app, b"", "/v1/sessions/nobody/fork")).status_code == 404
    unnamed = await send(app, b"", "/v1/sessions/a/fork")
    assert unnamed.json()["id"].startswith("found-")


async def test_sessions_are_listed_by_pages() -> None:
    app = app_over(FakeRunner())
    for name in "edcba":
        await send(app, json.dumps({"id": name}).encode(), "/v1/sessions")
    seen: list[str] = []
    after = ""
    for _ in range(3):
        page = await send(app, b"", f"/v1/sessions?limit=2{after}", method="GET")
        seen += [card["id"] for card in page.json()["data"]]
        after = f"&after={page.json()['last_id']}"
        if not page.json()["has_more"]:
            break
    assert seen == list("abcde")
    assert (await send(app, b"", "/v1/sessions?limit=0", method="GET")).status_code == 400


async def test_a_session_made_for_a_parent_with_a_deadline_has_turns_that_say_so() -> None:
    runner = FakeRunner()
    app = app_over(runner)
    made = {"id": "child", "parent_session_id": "main", "priority": -3, "deadline_s": 60}
    await send(app, json.dumps(made).encode(), "/v1/sessions")
    await send(app, chat(session_id="child"))
    await send(app, chat(session_id="child", panjiu={"priority": 5, "deadline_s": 1}))
    own, said = runner.requests
    assert (own.parent_id, own.priority) == ("main", -3)
    assert own.deadline_s is not None
    assert said.deadline_s is not None
    assert said.priority == 5
    assert said.deadline_s < own.deadline_s
    bad = await send(app, b'{"id": "x", "tll_s": 3}', "/v1/sessions")
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "tll_s")


async def test_what_a_client_knows_reaches_the_turn_by_body_or_by_header() -> None:
    runner = FakeRunner()
    app = app_over(runner)
    known = {"expected_tool_s": 40, "progress": 0.25, "lease_s": 9, "parent_session_id": "main"}
    await send(app, chat(panjiu=known))
    headers = {
        "X-Panjiu-Expected-Tool-S": "30",
        "X-Panjiu-Lease-S": "8",
        "X-Panjiu-Parent-Session-Id": "main",
        "X-Panjiu-Priority": "-7",
        "X-Vllm-Priority": "3",
    }
    await send(app, chat(), headers=headers)
    await send(app, chat(priority=10**9), headers={"X-Parent-Session-Id": "other"})
    body, header, vllm = runner.requests
    assert (body.gap.expected_s, body.gap.lease_s, body.parent_id) == (30.0, 9.0, "main")
    assert (header.gap.expected_s, header.gap.lease_s, header.priority) == (30.0, 8.0, -7)
    assert (vllm.priority, vllm.parent_id) == (64, "other"), "vLLM's are brought into range"
    for name, value in (
        ("Panjiu-Lease-S", "long"),
        ("Vllm-Priority", "high"),
        ("Panjiu-Progress", ".5"),
    ):
        param = f"x-{name.lower()}"
        refused = await send(app, chat(), headers={f"X-{name}": value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_a_parent_in_a_gap_is_known_to_wait_for_its_child() -> None:
    async with served_rack() as served, openai_client(served) as client, http_of(served) as http:
        for name, more in (("main", {}), ("child", {"panjiu": {"parent_session_id": "main"}})):
            await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=5,
                extra_body={"session_id": name, **more},
            )  # fmt: skip
        gap = (await http.get("/v1/sessions/main")).json()["gap"]
        assert gap["cause"] == GapCause.CHILDREN


def keys_of(**headers: str) -> tuple[str | None, str | None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    keys = session_keys(Caller(named), session_id=None)
    return keys.exact, keys.scope


def test_clients_are_known_by_their_own_headers() -> None:
    assert keys_of(x_session_id="a", thread_id="b") == ("a", None)
    assert keys_of(session_id="s", thread_id="t") == ("t", "s")
    assert keys_of(x_claude_code_session_id="c") == (None, "c")
    assert keys_of(x_opencode_session="o", x_session_affinity="o") == (None, "o")
    assert keys_of() == (None, None)
    assert session_keys(Caller({"thread-id": "t"}), session_id=None, scope="k").exact is None
    assert client_hints({}, None).parent_session_id is None


async def test_aiperfs_correlation_id_tells_where_a_replayed_history_does_not() -> None:
    runner = FakeRunner()
    app = app_over(runner)
    history = list(HELLO)
    for turn in range(3):
        await send(app, chat(messages=history), headers={"X-Correlation-ID": "conversation-1"})
        history += [
            {"role": "assistant", "content": "as it was recorded"},
            {"role": "user", "content": f"Go on with {turn}."},
        ]
    await send(app, chat(messages=HELLO), headers={"X-Correlation-ID": "conversation-2"})
    ids = [request.session_id for request in runner.requests]
    assert ids[0] == ids[1] == ids[2] != ids[3]


async def test_a_session_lives_as_long_as_it_was_opened_for() -> None:
    app = app_over(FakeRunner())
    await send(app, b'{"id": "short", "ttl_s": 0.01}', "/v1/sessions")
    await send(app, b'{"id": "long", "ttl_s": 9999}', "/v1/sessions")
    await anyio.sleep(0.02)
    await send(app, chat())
    assert (await send(app, b"", "/v1/sessions/short", method="GET")).status_code == 404
    assert (await send(app, b"", "/v1/sessions/long", method="GET")).status_code == 200
