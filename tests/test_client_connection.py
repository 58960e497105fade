"""What the gateway's server does beside uvicorn's: telling of clients that go, joining writes."""

from __future__ import annotations

import asyncio  # noqa: TID251 - transports are its
import gc
import socket
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
import uvicorn
from starlette.responses import Response
from typing_extensions import override

from agent_runtime.cli import client_connection
from agent_runtime.cli.client_connection import HeadJoiningTransport
from agent_runtime.cli.rack_server import endpoint_config
from agent_runtime.client_departure import EXTENSION, Departure, departure_of
from agent_runtime.gateway.leaving import leave_accompanied, leave_on_disconnect
from agent_runtime.gateway.relay.relayed_call import RelayedCall
from agent_runtime.occurrence import Occurrence
from tests.lookalike_engine import Faults, LookalikeEngine
from tests.served_engines import chat_body, served_engines, streamed, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Written(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    @override
    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    @override
    def close(self) -> None:
        self.is_closed = True

    @override
    def is_closing(self) -> bool:
        return self.is_closed


READ_BYTES = 256 << 10
"""In one read of the loop."""

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


async def test_a_head_is_written_with_what_comes_right_after_and_else_at_once() -> None:
    written = Written()
    joining = HeadJoiningTransport(written)
    joining.write(HEAD)
    joining.write(b"body")
    joining.write(b"more")
    assert written.writes == [HEAD + b"body", b"more"]
    joining.write(HEAD)
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    assert written.writes[2:] == [HEAD]
    joining.write(b"late")
    joining.write(HEAD)
    joining.close()
    assert written.writes[3:] == [b"late", HEAD]
    assert joining.is_closing()
    assert joining.get_extra_info("nothing", "else") == "else"
    await anyio.lowlevel.checkpoint()
    assert len(written.writes) == 5, "what was flushed is not written again"


async def never() -> Any:
    await anyio.sleep_forever()


@pytest.mark.parametrize("leave", [leave_on_disconnect, leave_accompanied])
async def test_what_runs_is_cancelled_when_the_server_tells_that_the_client_left(
    leave: Any,
) -> None:
    departure = Departure()
    scope = {"type": "http", "extensions": {EXTENSION: departure}}
    async with leave(scope, never) as leaving:
        departure.happen()
        await anyio.sleep_forever()
    assert leaving.client_left
    assert not leaving.was_cancelled
    async with leave(scope, never) as leaving:  # one that had left before
        await anyio.sleep_forever()
    assert leaving.client_left


@pytest.mark.parametrize("leave", [leave_on_disconnect, leave_accompanied])
async def test_a_client_that_leaves_later_cancels_nothing_any_more(leave: Any) -> None:
    departure = Departure()
    scope = {"type": "http", "extensions": {EXTENSION: departure}}
    async with leave(scope, never) as leaving:
        pass
    departure.happen()
    await anyio.lowlevel.checkpoint()
    assert not leaving.client_left


@pytest.mark.parametrize("tells", [False, True])
async def test_somebody_else_may_end_it_too(tells: bool) -> None:
    scope = {"type": "http", "extensions": {EXTENSION: Departure()} if tells else {}}
    cancelled = Occurrence()
    async with leave_on_disconnect(scope, never, cancelled) as leaving:
        cancelled.happen()
        await anyio.sleep_forever()
    assert leaving.was_cancelled
    assert not leaving.client_left


async def test_servers_that_tell_nothing_are_asked() -> None:
    assert departure_of({"type": "http"}) is None
    assert departure_of({"type": "http", "extensions": None}) is None

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async with leave_on_disconnect({"type": "http"}, receive) as leaving:
        await anyio.sleep_forever()
    assert leaving.client_left


async def test_requests_that_are_over_leave_nothing_to_the_garbage_collector() -> None:
    async with (
        served_engines([LookalikeEngine()]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        path = "/v1/chat/completions"
        gc.collect()
        gc.disable()
        try:
            for number in range(3):
                body = chat_body("hello", session_id=f"s{number}")
                assert (await client.post(path, json=body)).status_code == 200
                assert b"[DONE]" in await streamed(client, path, body)
            await anyio.sleep(0.01)
            left = [one for one in gc.get_objects() if type(one) is RelayedCall]
        finally:
            gc.enable()
        assert left == []


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("ends", ["refused", "left"])
async def test_nor_do_those_that_an_engine_refused_or_whose_client_left(
    streams: bool, ends: str
) -> None:
    """A stream outlives the young generations, and the oldest is hardly ever collected."""
    faults = Faults(status=400) if ends == "refused" else Faults(hang_after_tokens=1)
    engine = LookalikeEngine(faults=faults)
    async with (
        served_engines([engine]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):

        async def ask() -> None:
            path = "/v1/chat/completions"
            async with client.stream("POST", path, json=chat_body(stream=streams)) as answer:
                assert answer.status_code == 400, await answer.aread()

        gc.collect()
        gc.disable()
        try:
            if ends == "refused":
                await ask()
            else:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    await until(lambda: engine.asked)
                    tasks.cancel_scope.cancel()
            await until(lambda: not served.servers._turns)
            await anyio.sleep(0.05)
            left = [one for one in gc.get_objects() if type(one) is RelayedCall]
        finally:
            gc.enable()
        assert left == []


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /health HTTP/1.1\r\n",
    ],
)
async def test_who_takes_too_long_to_say_what_they_want_is_hung_up_on(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_connection, "REQUEST_S", 0.2)
    async with served_engines([LookalikeEngine()]) as served:
        port = int(served.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as slow:
            if said:
                await slow.send(said)
            received = b""
            with anyio.fail_after(5), suppress(anyio.BrokenResourceError):
                async for data in slow:
                    received += data
        assert received.count(b"200 OK") == said.count(b"host: x\r\n\r\nGET")


async def test_a_request_that_is_whole_may_be_answered_for_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "REQUEST_S", 0.2)
    engine = LookalikeEngine()
    engine.faults.token_s = 0.1
    async with (
        served_engines([engine]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        assert b"[DONE]" in await streamed(client, "/v1/chat/completions", chat_body())


async def test_who_sends_a_body_that_is_not_read_waits_and_none_of_it_is_lost() -> None:
    body = bytes(range(256)) * (8 << 12)  # 8 MiB
    reads, received = anyio.Event(), bytearray()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reads.wait()
        more = True
        while more:
            message = await receive()
            received.extend(message["body"])
            more = message["more_body"]
        await Response("read")(scope, receive, send)

    server = uvicorn.Server(endpoint_config(app, grace_s=1))
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            async with await anyio.connect_tcp(*listener.getsockname()) as client:
                tasks.start_soon(client.send, head + body)

                def num_unread() -> int:
                    cycles = [
                        getattr(one, "cycle", None) for one in server.server_state.connections
                    ]
                    return sum(len(cycle.body) for cycle in cycles if cycle is not None)

                await until(lambda: num_unread() > client_connection.MAX_UNREAD_BYTES)
                await anyio.sleep(0.1)
                assert num_unread() <= client_connection.MAX_UNREAD_BYTES + READ_BYTES
                reads.set()
                assert (await client.receive()).endswith(b"read")
            server.should_exit = True
    assert received == body


@pytest.mark.parametrize("many", [False, True])
async def test_headers_without_end_are_refused(many: bool) -> None:
    async with served_engines([LookalikeEngine()]) as served:
        port = int(served.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as endless:
            await endless.send(b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: ")
            received = b""
            with anyio.fail_after(10), suppress(anyio.BrokenResourceError):
                for number in range(10_000):
                    await endless.send(
                        b"x-%d: %b\r\n" % (number, b"a" * 1000) if many else b"a" * 1000
                    )
            with anyio.fail_after(10), suppress(anyio.BrokenResourceError):
                async for data in endless:
                    received += data
            assert number < 9_999, "it took ten megabytes"
            assert received[:13] in {b"HTTP/1.1 431 ", b""}  # a reset may overtake it
        async with httpx2.AsyncClient(base_url=served.url, timeout=20) as client:
            headers = {"x-long": "a" * 60_000}
            assert (await client.get("/health", headers=headers)).status_code == 200
