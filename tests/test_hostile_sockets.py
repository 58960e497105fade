"""Bytes on sockets that are no good HTTP, or too much of it, before both parsers there are."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from importlib.machinery import ModuleSpec
from pathlib import Path

import anyio
import httpx2
import pytest
import uvicorn

from agent_runtime.cli import client_connection, plain_connection, rack_server
from agent_runtime.cli.client_connection import MAX_HEAD_BYTES
from tests.hostile_gateways import emulated_gateway
from tests.served_command import ServedCommand, served_command

pytestmark = pytest.mark.anyio

MIB = 1 << 20
PARSERS = ("httptools", "h11")
POST = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\n"
GET = b"GET /version HTTP/1.1\r\nhost: x\r\n"
SMUGGLED = GET + b"\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
REFUSED = {
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 9\r\n\r\n{}" + SMUGGLED,
    "an odd coding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a space in a name": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a length below zero": POST + b"content-length: -1\r\n\r\n",
    "a length with a sign": POST + b"content-length: +2\r\n\r\n{}",
    "a length of many digits": POST + b"content-length: " + b"9" * 30 + b"\r\n\r\n{}",
    "chunks of no length": POST + CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk of many digits": POST + CHUNKED + b"\r\n" + b"f" * 30 + b"\r\n{}",
    "bare carriage returns": b"GET /version HTTP/1.1\rhost: x\r\r",
    "one in a value": GET + b"x-a: b\rc: d\r\n\r\n",
    "a zero in a value": GET + b"x-a: b\0c\r\n\r\n",
    "a zero in a name": GET + b"x\0a: b\r\n\r\n",
    "a control character in the target": b"GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a target that is no ASCII": b"GET /v1/models/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    "a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" + b"a" * 100,
    "an endless method": b"A" * 200_000 + b" / HTTP/1.1\r\n\r\n",
}
AMBIGUOUS = (
    POST + b"content-length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    POST + CHUNKED + b"content-length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
)
ODD = {
    "folded": GET + b"x-a: b\r\n c\r\n\r\n",
    "two equal lengths": POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "line feeds alone": b"GET /version HTTP/1.1\nhost: x\n\n",
    "another host": b"GET http://y/version HTTP/1.1\r\nhost: x\r\n\r\n",
    "no host of sense": b"GET /version HTTP/1.1\r\nhost: [\r\n\r\n",
    "a tunnel": b"CONNECT y:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    "dots": b"GET /v1/sessions/../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n",
    "an upgrade": GET + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "garbage behind it": SMUGGLED + b"\x16\x03\x01\x02\0\1\r\n\r\n",
    "trailers": POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nx-session-id: evil\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "a long target": b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
}
TWO = {"garbage behind it", "another protocol"}
STATUS = re.compile(rb"HTTP/1\.1 (\d+)")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which one the endpoint has: h11 where httptools is not installed."""
    if request.param == "h11":

        def find(name: str) -> ModuleSpec | None:
            return None if name == "httptools" else importlib.util.find_spec(name)

        monkeypatch.setattr(rack_server, "find_spec", find)
    monkeypatch.setattr(client_connection, "REQUEST_S", 0.3)
    monkeypatch.setattr(plain_connection, "REQUEST_S", 0.3)
    return str(request.param)


@asynccontextmanager
async def served(parser: str) -> AsyncIterator[int]:
    """Serve the emulated rack; yield the port."""
    async with emulated_gateway() as gateway:
        config = rack_server.endpoint_config(gateway.app, grace_s=1, keep_alive_s=1)
        named = plain_connection.PlainConnection
        assert (config.http is named) == (parser == "h11")
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                while not server.started:
                    await anyio.sleep(0.001)
                yield listener.getsockname()[1]
                server.should_exit = True
        gateway.check()


async def said_to(port: int, data: bytes) -> bytes:
    """Return all that is answered to some bytes until the server hangs up, which it does."""
    received = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as client:
        with anyio.fail_after(10), suppress(anyio.BrokenResourceError):
            with suppress(anyio.BrokenResourceError):
                await client.send(data)
            async for some in client:
                received += some
    return received


async def is_well(port: int) -> bool:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        return (await client.get("/health")).status_code == 200


async def test_what_is_no_http_is_refused_and_nothing_is_smuggled_in_it(
    parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(parser) as port:
        for name, data in REFUSED.items():
            statuses = STATUS.findall(await said_to(port, data))
            assert statuses in ([], [b"400"], [b"431"], [b"501"]), f"{name}: {statuses}"
        assert await is_well(port)
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


@pytest.mark.parametrize("data", AMBIGUOUS)
async def test_behind_a_body_of_two_lengths_no_request_is_read(parser: str, data: bytes) -> None:
    async with served(parser) as port:
        statuses = STATUS.findall(await said_to(port, data))
        assert statuses == ([b"400"] if parser == "httptools" else [b"201"])
        assert await is_well(port)


async def test_what_is_odd_http_is_nobodys_error(
    parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(parser) as port:
        for name, data in ODD.items():
            once = data.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
            statuses = STATUS.findall(await said_to(port, once))
            assert all(status < b"500" for status in statuses), f"{name}: {statuses}"
            assert len(statuses) <= 1 + (name in TWO), f"{name}: {statuses}"
        assert await is_well(port)
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET",
        GET + b"x-slow: ",
        POST + b"content-length: 100\r\n\r\n{",
        POST + CHUNKED + b"\r\n5\r\n{",
        SMUGGLED + GET,
    ],
)
async def test_who_does_not_get_to_the_point_is_hung_up_on(parser: str, said: bytes) -> None:
    async with served(parser) as port:
        received = await said_to(port, said)
        assert len(STATUS.findall(received)) == said.count(SMUGGLED)
        assert await is_well(port)


async def test_a_drop_now_and_then_buys_no_time(parser: str) -> None:
    async with served(parser) as port:
        with anyio.fail_after(10), suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            async with await anyio.connect_tcp("127.0.0.1", port) as client:
                await client.send(POST + b"content-length: 100000\r\n\r\n")
                for _ in range(1000):
                    await client.send(b" ")
                    await anyio.sleep(0.02)
                raise AssertionError("it was listened to for twenty seconds")


async def test_an_answer_may_take_as_long_as_it_takes_and_idle_clients_stay(parser: str) -> None:
    async with (
        served(parser) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for _ in range(3):
            assert (await client.get("/health")).status_code == 200
            await anyio.sleep(0.5)
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


async def test_heads_are_bounded(parser: str) -> None:
    async with served(parser) as port:
        for head in (
            GET + b"x-long: " + b"a" * 2 * MAX_HEAD_BYTES,
            GET + b"a: b\r\n" * MAX_HEAD_BYTES,
            b"GET /" + b"a" * 2 * MAX_HEAD_BYTES,
            SMUGGLED + GET + b"x-long: " + b"a" * 2 * MAX_HEAD_BYTES,
        ):
            received = await said_to(port, head)
            assert set(STATUS.findall(received)) <= {b"200", b"400", b"431"}
        assert await is_well(port)


# A process of its own, whose memory can be told from the tests'.

LIMIT = 64 * MIB
"""What ``panjiu serve`` takes of one body."""


@pytest.fixture(scope="module")
def command() -> Iterator[ServedCommand]:
    with served_command("--model", "qwen3-8b", "--replicas", "2", "--speed", "200") as opened:
        yield opened


def peak_bytes(process: subprocess.Popen[str]) -> int:
    """Return the most memory that a process has had so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


async def pour(port: int, head: bytes, piece: bytes, num_bytes: int) -> bytes:
    """Send a body whether it is wanted or not; return the answer."""
    received = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as client:

        async def read() -> None:
            nonlocal received
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for some in client:
                    received += some

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            with anyio.fail_after(60), suppress(anyio.BrokenResourceError):
                await client.send(head)
                for _ in range(num_bytes // len(piece)):
                    await client.send(piece)
                while not received:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    return received


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("how", ["declared", "overstated", "chunked"])
async def test_a_hundred_megabytes_are_a_413_and_not_kept(command: ServedCommand, how: str) -> None:
    port, size = int(command.url.rpartition(":")[2]), 100 * MIB
    before = peak_bytes(command.process)
    piece = b"x" * (1 << 16)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
    if how == "chunked":
        head, piece = head + CHUNKED + b"\r\n", b"10000\r\n" + piece + b"\r\n"
    else:
        length = size if how == "declared" else size * 20
        head += b"content-length: %d\r\n\r\n" % length
    received = await pour(port, head, piece, size)
    assert STATUS.findall(received) == [b"413"], received[:200]
    assert b"the body is over the limit of" in received
    async with httpx2.AsyncClient(base_url=command.url) as client:
        assert (await client.get("/health")).status_code == 200
    grown = peak_bytes(command.process) - before
    assert grown < (1.25 * LIMIT if how == "chunked" else LIMIT / 4)
