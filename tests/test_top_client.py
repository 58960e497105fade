"""``panjiu top`` and the server it reads: connections, what breaks them, and what is said of it."""

from __future__ import annotations

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from agent_runtime.errors import BackendError, ConfigError, ViewLostError
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.terminal_view.connection import Connection
from agent_runtime.terminal_view.view_client import ViewClient, ViewServer, follow
from tests.viewed_rack import ViewService, event, frame, layout, serving

pytestmark = pytest.mark.anyio
FIRST, SECOND, THIRD = layout(2), frame(1.0), frame(2.0, whole=False)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def read_all(url: str, key: str | None = None) -> list[bytes]:
    async with ViewClient(ViewServer.at(url, key)).opened() as messages:
        return [data async for data in messages]


async def test_messages_come_as_they_are() -> None:
    service = ViewService([FIRST, SECOND, None])
    async with serving(service.app) as url:
        got = await read_all(url, "a key")
    assert [b"data: " + data + b"\n\n" for data in got] == [event(FIRST), event(SECOND)]
    assert service.headers[0]["authorization"] == "Bearer a key"


async def test_a_connection_that_breaks_is_made_again() -> None:
    service = ViewService([FIRST, SECOND, None], [FIRST, THIRD])
    taken: list[bytes] = []
    told: list[Connection] = []
    async with serving(service.app) as url, anyio.create_task_group() as tasks:

        def take(data: bytes) -> None:
            taken.append(data)
            if len(taken) == 4:
                tasks.cancel_scope.cancel()

        with anyio.fail_after(20):
            await follow(ViewClient(ViewServer.at(url)), take, told.append, 0.01)
    assert [b"data: " + data + b"\n\n" for data in taken] == [
        event(one) for one in (FIRST, SECOND, FIRST, THIRD)
    ]
    assert told[0] == Connection()
    assert told[1].problem is not None
    assert told[1].problem.endswith("ended the stream")
    assert told[1].retry_in_s == 0.01


async def test_a_server_that_went_is_waited_for_longer_and_longer() -> None:
    service = ViewService([FIRST, None])
    told: list[Connection] = []
    async with serving(service.app) as url, anyio.create_task_group() as tasks:

        def hear(connection: Connection) -> None:
            told.append(connection)
            if len(told) == 5:
                tasks.cancel_scope.cancel()

        with anyio.fail_after(20):
            await follow(ViewClient(ViewServer.at(url)), lambda _: None, hear, 0.01)
    waits = [one.retry_in_s for one in told[1:]]
    assert waits == [0.01, 0.02, 0.04, 0.08]
    assert "takes no viewer now: too many viewers" in str(told[-1].problem)


async def test_the_first_connection_is_not_waited_for() -> None:
    service = ViewService()
    async with serving(service.app) as url:
        pass
    with pytest.raises(ViewLostError, match=r"no server at .*start one with 'panjiu serve'"):
        await follow(ViewClient(ViewServer.at(url)), lambda _: None, lambda _: None)


REFUSED = {"error": {"message": "send the dashboard's key"}}


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (JSONResponse(REFUSED, 401), ConfigError, "wants a key .*PANJIU_DASHBOARD_KEY.*send the"),
        (JSONResponse(REFUSED, 403), ConfigError, "does not show its dashboard: send the"),
        (JSONResponse(REFUSED, 404), BackendError, "has no dashboard: .*--no-dashboard"),
        (JSONResponse(REFUSED, 503), ViewLostError, "takes no viewer now: send"),
        (Response(b"oh", 500), BackendError, "/view/stream answered 500: oh"),
        (Response(b"", 307), BackendError, "answered 307"),
        (HTMLResponse("<html>"), BackendError, "no event stream but text/html"),
    ],
)
async def test_refusals_say_what_to_do(answer: Response, error: type[Exception], says: str) -> None:
    service = ViewService()
    service.refusal = answer
    client = ViewClient(ViewServer.at("http://rack"), StreamingAsgiTransport(service.app))
    with pytest.raises(error, match=says):
        async with client.opened():
            pass


async def test_a_wrong_key_is_told_from_none() -> None:
    service = ViewService()
    service.refusal = JSONResponse(REFUSED, 401)
    client = ViewClient(ViewServer.at("http://rack", "guess"), StreamingAsgiTransport(service.app))
    with pytest.raises(ConfigError, match="wants another key") as caught:
        async with client.opened():
            pass
    assert "guess" not in str(caught.value)


async def test_a_server_that_falls_silent_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.terminal_view.view_client.SILENCE_S", 0.1)
    service = ViewService([FIRST])
    async with serving(service.app) as url:
        with pytest.raises(ViewLostError, match=r"said nothing for 0\.1 s"):
            await read_all(url)


async def test_a_server_of_something_else_is_no_rack() -> None:
    async def anything(_: object) -> Response:
        return JSONResponse({})

    app = Starlette(routes=[Route("/view/stream", anything)])
    with pytest.raises(BackendError, match="no event stream but application/json"):
        async with ViewClient(ViewServer.at("http://rack"), StreamingAsgiTransport(app)).opened():
            pass


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        (":8313", "http://127.0.0.1:8313"),
        ("localhost:8000", "http://localhost:8000"),
        ("https://rack.example/panjiu/", "https://rack.example/panjiu"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
async def test_urls_are_taken_as_people_write_them(written: str, meant: str) -> None:
    assert ViewServer.at(written).url == meant


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("ftp://x", "expected one such as http://127.0.0.1:8000"),
        ("http://", "expected one such as"),
        ("http://x:99999", "range"),
        ("http://me:secret@x", "no user or password there; the dashboard's key is in"),
        ("http://x/?a=b", "nothing behind the path"),
    ],
)
async def test_what_is_no_url_says_so(written: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        ViewServer.at(written)
    assert "secret" not in str(caught.value)


async def test_a_key_that_no_header_carries_is_refused() -> None:
    with pytest.raises(ConfigError, match="printable ASCII"):
        ViewServer.at("http://x", "clé\n")
