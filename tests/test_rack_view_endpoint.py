"""The rack as it is watched over HTTP: who may, what they get, and when receipts are made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import openai
import pytest

from agent_runtime.cli.main import main
from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.errors import ConfigError
from agent_runtime.event_stream import EventStreamParser
from agent_runtime.gateway.dashboard import DashboardTerms
from agent_runtime.gateway.relay.relay_app import RelayTerms
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.gateway.view_access import read_dashboard_key
from agent_runtime.rack_view.live_view import MAX_VIEWERS, RackView
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from agent_runtime.workload.session_script import start_times
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from scheduler.ids import TenantId
from tests.engines import deployment
from tests.lookalike_engine import LookalikeEngine
from tests.rack_view_client import Watcher, validator
from tests.replayed_workload import Replay
from tests.scripts import growing_session
from tests.scripts import workload as some
from tests.served_engines import chat_body, served_engines, streamed, until
from tests.served_rack import MODEL, ServedRack, openai_client, served_rack

pytestmark = pytest.mark.anyio

STREAM = "/view/stream"
KEY = "dashboard-1"
KEYS = TenantKeys({TenantId("red"): ["sk-red-0001"]})
OPEN = DashboardTerms()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client_of(url: str, key: str | None = None) -> httpx2.AsyncClient:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(base_url=url, timeout=20, headers=headers)


def view_of(served: ServedRack) -> RackView:
    assert served.dashboard is not None
    return served.dashboard.view


@asynccontextmanager
async def watching(http: httpx2.AsyncClient) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Open the stream; give its messages as they come."""
    async with http.stream("GET", STREAM) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        parser = EventStreamParser()

        async def messages() -> AsyncIterator[dict[str, Any]]:
            async for data in response.aiter_bytes():
                for event in parser.feed(data):
                    yield json.loads(event)

        yield messages()


async def watch_until(
    http: httpx2.AsyncClient, seen: Callable[[Watcher], bool], watcher: Watcher
) -> Watcher:
    with anyio.fail_after(20):
        async with watching(http) as messages:
            async for message in messages:
                watcher.take(message)
                if watcher.num_frames and seen(watcher):
                    break
    return watcher


async def ask(client: openai.AsyncOpenAI, session: str) -> None:
    await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Plan the day."}],
        max_tokens=20,
        extra_body={"session_id": session},
    )


async def test_a_session_is_seen_and_its_turn_tells_why_it_ran_where_it_did() -> None:
    async with (
        served_rack(dashboard=OPEN) as served,
        openai_client(served) as client,
        client_of(served.url) as http,
    ):
        async with watching(http) as messages:
            watcher = Watcher()
            watcher.take(await anext(messages))
            assert watcher.layout["source"] == "emulated"
            assert watcher.layout["speed"] == 1000
            assert len(watcher.layout["replicas"]) == 2
            watcher.take(await anext(messages))
            assert watcher.last["whole"]
            assert not watcher.sessions
            await ask(client, "agent-1")
            with anyio.fail_after(20):
                while watcher.last["totals"]["turns"] < 1:
                    watcher.take(await anext(messages))
        assert watcher.state_of("agent-1") == "gap"
        assert len(watcher.latest) == 1
        turn_id, session, replica = watcher.latest[0][:3]
        assert session == "agent-1"
        answer = await http.get(f"/view/turns/{turn_id.replace('#', '%23')}")
        story = answer.json()
        validator("story").validate(story)
        assert story["session"] == "agent-1"
        assert story["replica"] == replica
        assert story["receipts"][-1][1]["chosen"] == replica
        late = await watch_until(http, lambda _: True, Watcher())
        assert late.sessions == watcher.sessions
        unknown = await http.get("/view/turns/nobody")
        assert unknown.status_code == 404
        assert "5,000 are kept" in unknown.json()["error"]["message"]


async def test_receipts_are_made_while_somebody_watches_and_for_a_minute_more() -> None:
    async with (
        served_rack(speed=20_000, dashboard=OPEN) as served,
        openai_client(served) as client,
        client_of(served.url) as http,
    ):

        def explains() -> bool:
            return served.scheduler.explains

        assert not explains()
        async with watching(http) as messages:
            await anext(messages)
            assert explains()
        await until(lambda: view_of(served).num_viewers == 0)
        assert explains()
        view = view_of(served)
        until_s = view._explains_until_s
        assert until_s is not None
        assert until_s > served.rack.now_s() + 30 * 20_000
        view._explains_until_s = served.rack.now_s()  # a minute passes
        await ask(client, "later")
        assert not explains()


async def test_viewers_are_limited_and_who_leaves_makes_room() -> None:
    async with (
        served_rack(dashboard=OPEN) as served,
        client_of(served.url) as http,
        AsyncExitStack() as stack,
    ):
        view = view_of(served)
        leaves = await stack.enter_async_context(AsyncExitStack())
        streams = []  # one that is dropped is closed
        for number in range(MAX_VIEWERS):
            owner = leaves if number == 0 else stack
            own = await owner.enter_async_context(client_of(served.url))
            messages = await owner.enter_async_context(watching(own))
            await anext(messages)
            streams.append(messages)
        assert view.num_viewers == MAX_VIEWERS
        refused = await http.get(STREAM)
        assert refused.status_code == 503
        assert "close one" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"]
        await leaves.aclose()
        await until(lambda: view.num_viewers == MAX_VIEWERS - 1)
        await watch_until(http, lambda _: True, Watcher())
        await until(lambda: view.num_viewers == MAX_VIEWERS - 1)


async def test_streams_end_when_the_server_stops() -> None:
    async with served_rack(dashboard=OPEN) as served, client_of(served.url) as http:
        assert served.dashboard is not None
        with anyio.fail_after(20):
            async with watching(http) as messages:
                await anext(messages)
                served.dashboard.end.end()
                assert [m["kind"] async for m in messages][:1] == ["frame"]


async def test_without_a_dashboard_there_are_no_such_routes() -> None:
    async with served_rack() as served, client_of(served.url) as http:
        assert served.dashboard is None
        assert not served.scheduler.explains
        for path in ("/", STREAM, "/view/turns/t"):
            assert (await http.get(path)).status_code == 404
        assert STREAM not in (await http.get("/openapi.json")).json()["paths"]


async def test_the_document_has_the_routes_and_head_does_not_wait_for_the_end() -> None:
    async with served_rack(dashboard=OPEN) as served, client_of(served.url) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert {"/", STREAM, "/view/turns/{turn_id}"} <= set(paths)
        assert list(paths[STREAM]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
        assert "403" in paths[STREAM]["get"]["responses"]
        head = await http.head(STREAM)
        assert head.status_code == 200
        page = await http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


async def test_with_api_keys_the_view_takes_a_key_of_its_own_and_the_page_none() -> None:
    terms = DashboardTerms(KEY)
    assert KEY not in repr(terms)
    async with served_rack(dashboard=terms, tenants=KEYS) as served:
        for key, status, said in [
            (None, 401, "no dashboard key"),
            ("wrong-key", 401, "not the dashboard's key"),
            ("sk-red-0001", 403, "tenant's API key does not open"),
        ]:
            async with client_of(served.url, key) as http:
                assert (await http.get("/")).status_code == 200
                for path in (STREAM, "/view/turns/t"):
                    refused = await http.get(path)
                    assert refused.status_code == status
                    assert said in refused.json()["error"]["message"]
        async with client_of(served.url, KEY) as http:
            watcher = await watch_until(http, lambda _: True, Watcher())
            assert watcher.num_frames == 1
            assert (await http.get("/v1/models")).status_code == 401


async def test_with_api_keys_and_no_dashboard_key_the_answer_says_how_to_set_one() -> None:
    async with (
        served_rack(dashboard=OPEN, tenants=KEYS) as served,
        client_of(served.url, "sk-red-0001") as http,
    ):
        refused = await http.get(STREAM)
        assert refused.status_code == 403
        assert "--dashboard-key-file FILE" in refused.json()["error"]["message"]
        assert "PANJIU_DASHBOARD_KEY" in refused.json()["error"]["message"]
        assert (await http.get("/")).status_code == 200


def test_a_dashboard_key_is_read_from_a_file_or_else_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_dashboard_key(file, "another-one", None) == KEY
    assert read_dashboard_key(None, "another-one", None) == "another-one"
    assert read_dashboard_key(None, None, KEYS) is None
    for text, said in [
        ("short", "8 or more"),
        ("two words", "no spaces"),
        ("sk-red-0001", "tenant"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=said) as refused:
            read_dashboard_key(file, None, KEYS)
        assert text not in str(refused.value).replace("no spaces", "")
    with pytest.raises(ConfigError, match="can't be read"):
        read_dashboard_key(tmp_path / "nothing", None, None)


def test_a_key_for_no_dashboard_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--no-dashboard", "--dashboard-key-file", str(tmp_path / "key")]
    assert main(["serve", "--port", "0", *options]) == 2
    assert "leave out --no-dashboard" in capsys.readouterr().err


async def test_real_engines_are_seen_with_their_health_and_what_their_kv_holds() -> None:
    engines = [LookalikeEngine(), LookalikeEngine()]
    async with (
        served_engines(engines, events=True, dashboard=OPEN) as served,
        client_of(served.url) as http,
    ):
        for number in range(4):
            body = chat_body("many words of a prompt " * 8, session_id=f"s{number}")
            assert (await http.post("/v1/chat/completions", json=body)).status_code == 200

        def seen(watcher: Watcher) -> bool:
            return watcher.last["totals"]["turns"] == 4 and any(
                row[2] > 0 for row in watcher.last["replicas"]
            )

        watcher = await watch_until(http, seen, Watcher())
        assert watcher.layout["source"] == "engines"
        assert watcher.layout["band"] is None
        labels = [replica["label"] for replica in watcher.layout["replicas"]]
        assert labels[:2] == [one.url for one in served.running]
        assert labels[2:] == ["", ""]
        names = watcher.layout["healths"]
        healths = [names[row[4]] for row in watcher.last["replicas"]]
        assert healths == ["up", "up", "empty", "empty"]
        assert set(watcher.sessions) == {f"s{number}" for number in range(4)}
        assert 0 < watcher.last["totals"]["output_tokens"] <= 4 * 8
        assert watcher.last["series"][:2] == [None, None]  # nobody saw their first tokens
        body = chat_body("many words of a prompt " * 8, session_id="s0")
        await streamed(http, "/v1/chat/completions", body)
        watcher = await watch_until(
            http, lambda seen: seen.last["series"][0] is not None, Watcher()
        )
        assert watcher.last["series"][0][2] == 1
        engines[1].faults.unhealthy = True
        await watch_until(
            http, lambda seen: names[seen.last["replicas"][1][4]] == "down", Watcher()
        )


async def test_engines_that_come_end_the_stream_so_that_viewers_get_the_new_layout(
    tmp_path: Path,
) -> None:
    file = tmp_path / "engines"
    async with (
        served_engines(
            [LookalikeEngine(), LookalikeEngine()], file=str(file), dashboard=OPEN
        ) as served,
        client_of(served.url) as http,
    ):
        with anyio.fail_after(20):
            async with watching(http) as messages:
                before = await anext(messages)
                await anyio.Path(file).write_text(served.running[0].url)
                async for _ in messages:
                    pass
        after = await watch_until(http, lambda _: True, Watcher())
        assert [one["label"] for one in before["replicas"]].count("") == 2
        assert [one["label"] for one in after.layout["replicas"]].count("") == 3


async def test_tenants_of_real_engines_don_t_see_each_other_either() -> None:
    async with (
        served_engines(
            [LookalikeEngine()], terms=RelayTerms(tenants=KEYS), dashboard=DashboardTerms(KEY)
        ) as served,
        client_of(served.url, "sk-red-0001") as red,
        client_of(served.url, KEY) as watcher,
    ):
        assert (await red.get(STREAM)).status_code == 403
        await watch_until(watcher, lambda _: True, Watcher())


def test_a_rack_is_watched_in_virtual_time_from_its_first_turn_to_its_last() -> None:
    child = growing_session("a/sub", 2, num_turns=2)
    workload = some(
        growing_session("a", 0, children={1: (child,)}), growing_session("b", 1, num_turns=6)
    )
    clock = VirtualClock()
    service = EmulatedService(
        deployment(MODEL, num_replicas=2, block_size_tokens=workload.block_size_tokens),
        ServiceOptions(
            Band.BASE, "panjiu", EngineLimits(), any_model_name=True, dashboard=DashboardTerms()
        ),
        Clock(origin_s=0.0),
        SeededModel(),
        epoch_s=lambda: 0.0,
    )
    watcher = Watcher()
    states: set[str] = set()

    async def watch(http: httpx2.AsyncClient) -> None:
        async with watching(http) as messages:
            async for message in messages:
                watcher.take(message)
                states.update(watcher.state_of(session) for session in watcher.sessions)

    async def live() -> None:
        transport = StreamingAsgiTransport(service.app)
        async with httpx2.AsyncClient(
            transport=transport, timeout=None, base_url="http://rack"
        ) as http:
            client = openai.AsyncOpenAI(
                api_key="-", base_url="http://rack/v1", http_client=http, max_retries=0
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch, http)
                await Replay(client, workload, start_times(workload, 10.0, 0)).run()
                await anyio.sleep(1.0)
                tasks.cancel_scope.cancel()

    anyio.run(
        live,
        backend_options={"loop_factory": lambda: VirtualTimeLoop(clock=clock, world=service.rack)},
    )
    num_turns = sum(script.num_turns() for script in workload.sessions)
    assert watcher.last["totals"]["turns"] == num_turns
    assert watcher.last["totals"]["sessions_closed"] == 3
    assert not watcher.sessions
    assert {"prefill", "decode", "gap"} <= states
    assert watcher.num_frames >= 2 * int(watcher.last["t"]) - 1
    assert service.dashboard is not None
    assert service.dashboard.view.num_viewers == 0
