"""The HTTP client that engines are reached by, before a server that means no good."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the connection is a protocol of its
import ssl
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import httptools
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from agent_runtime.backends.vllm_servers import engine_connections
from agent_runtime.backends.vllm_servers.engine_connection import (
    MAX_BUFFERED_BYTES,
    MAX_HEAD_BYTES,
    ConnectionBrokeError,
    EngineConnection,
)
from agent_runtime.backends.vllm_servers.engine_connections import (
    EngineConnections,
    open_engine_http,
)
from agent_runtime.backends.vllm_servers.engine_http import EngineReply, EngineUnreachableError
from agent_runtime.backends.vllm_servers.engine_request import Origin, request_head, split_url
from tests.hostile_server import HostileConnection, HostileServer, hostile_server


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def body_of(reply: EngineReply) -> bytes:
    body = b""
    while data := await reply.next_bytes():
        body += data
    return body


async def asked(http: EngineConnections, url: str, body: bytes = b"{}") -> bytes:
    return await body_of(await http.send("POST", f"{url}/x", body, {}))


def says(*pieces: bytes) -> Callable[[HostileConnection, HostileServer], Awaitable[None]]:
    """Answer every request by the same pieces."""

    async def serve(connection: HostileConnection, _: HostileServer) -> None:
        while True:
            await connection.request()
            await connection.say(*pieces)

    return serve


def says_once(*pieces: bytes) -> Callable[[HostileConnection, HostileServer], Awaitable[None]]:
    """Answer one request, and close."""

    async def serve(connection: HostileConnection, _: HostileServer) -> None:
        await connection.request()
        await connection.say(*pieces)

    return serve


class FakeTransport(asyncio.Transport):
    """Counts, and never sends."""

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = self.is_aborted = False
        self.written = b""

    @override
    def write(self, data: Any) -> None:
        self.written += bytes(data)

    @override
    def writelines(self, pieces: Any) -> None:
        self.written += b"".join(pieces)

    @override
    def pause_reading(self) -> None:
        self.is_paused = True

    @override
    def resume_reading(self) -> None:
        self.is_paused = False

    @override
    def abort(self) -> None:
        self.is_aborted = True

    @override
    def is_closing(self) -> bool:
        return self.is_aborted

    @override
    def get_write_buffer_size(self) -> int:
        return 0


def connection_with(transport: FakeTransport) -> EngineConnection:
    connection = EngineConnection(httptools.HttpResponseParser, lambda _: None)
    connection.connection_made(transport)
    return connection


def framed(body: bytes, framing: str, cuts: list[int]) -> bytes:
    if framing == "length":
        return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if framing == "end":
        return b"\r\n" + body
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[a:b] for a, b in pairwise(places)]
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(one), one) for one in pieces)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: t\r\n\r\n"


@given(
    body=st.binary(max_size=300),
    framing=st.sampled_from(["length", "chunked", "end"]),
    interim=st.sampled_from(
        [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nA: b\r\n\r\n"]
    ),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    splits=st.lists(st.integers(0, 700), max_size=12),
)
def test_an_answer_is_the_same_however_its_bytes_are_split(
    body: bytes, framing: str, interim: bytes, cuts: list[int], splits: list[int]
) -> None:
    wire = interim + b"HTTP/1.1 201 Made\r\nContent-TYPE: a/b\r\n" + framed(body, framing, cuts)
    places = sorted({min(place, len(wire)) for place in splits} | {0, len(wire)})

    async def main() -> None:
        connection = connection_with(FakeTransport())
        heard = b""

        async def hear() -> None:
            nonlocal heard
            await connection.ask(b"HEAD", b"BODY")
            while data := await connection.next_bytes():
                heard += data

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            await anyio.lowlevel.checkpoint()
            for start, end in pairwise(places):
                connection.data_received(wire[start:end])
                await anyio.lowlevel.checkpoint()
            assert connection.is_reusable is (framing != "end")
            if framing == "end":
                connection.connection_lost(None)
        assert heard == body
        assert connection.status == 201
        assert connection.headers[b"content-type"] == b"a/b"

    anyio.run(main)


@given(
    body=st.binary(min_size=1, max_size=200),
    framing=st.sampled_from(["length", "chunked"]),
    missing=st.integers(1, 400),
)
def test_an_answer_that_is_cut_off_anywhere_is_never_taken_for_whole(
    body: bytes, framing: str, missing: int
) -> None:
    wire = b"HTTP/1.1 200 OK\r\n" + framed(body, framing, [7])
    cut = wire[: max(0, len(wire) - missing)]

    async def main() -> None:
        connection = connection_with(FakeTransport())

        async def hear() -> None:
            await connection.ask(b"HEAD", b"")
            while await connection.next_bytes():
                pass

        async with anyio.create_task_group() as tasks:

            async def breaks() -> None:
                with pytest.raises(ConnectionBrokeError) as caught:
                    await hear()
                assert caught.value.began is bool(cut)

            tasks.start_soon(breaks)
            await anyio.lowlevel.checkpoint()
            if cut:
                connection.data_received(cut)
            connection.connection_lost(None)
        assert not connection.is_reusable

    anyio.run(main)


@given(st.binary(min_size=1, max_size=60))
def test_bytes_that_are_no_http_end_the_connection_and_raise_nothing_else(noise: bytes) -> None:
    async def main() -> None:
        transport = FakeTransport()
        connection = connection_with(transport)

        async def hear() -> None:
            with pytest.raises(ConnectionBrokeError):
                await connection.ask(b"HEAD", b"")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            await anyio.lowlevel.checkpoint()
            connection.data_received(b"\x00" + noise)
            connection.connection_lost(None)
        assert transport.is_aborted

    anyio.run(main)


@pytest.mark.anyio
async def test_the_socket_is_not_read_while_nobody_takes_the_body() -> None:
    transport = FakeTransport()
    connection = connection_with(transport)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.ask, b"HEAD", b"")
        await anyio.lowlevel.checkpoint()
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    connection.data_received(b"x" * MAX_BUFFERED_BYTES)
    connection.data_received(b"x")
    assert transport.is_paused
    assert len(await connection.next_bytes()) == MAX_BUFFERED_BYTES + 1
    with anyio.move_on_after(0.01):
        await connection.next_bytes()
    assert not transport.is_paused, "somebody waits for more"


@pytest.mark.anyio
async def test_a_slow_reader_holds_an_engine_up() -> None:
    total, sent = 64 << 20, 0

    async def serve(connection: HostileConnection, _: HostileServer) -> None:
        nonlocal sent
        await connection.request()
        await connection.stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await connection.stream.send(b"x" * (1 << 16))
            sent += 1 << 16

    async with hostile_server(serve) as server, open_engine_http() as http:
        reply = await http.send("GET", f"{server.url}/x", b"", {})
        num_read = len(await reply.next_bytes())
        before = -1
        while sent != before:  # until it is stuck
            before = sent
            await anyio.sleep(0.05)
        assert sent < total
        while data := await reply.next_bytes():
            num_read += len(data)
        assert num_read == total


@pytest.mark.anyio
async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with hostile_server(says(OK)) as server, open_engine_http("k") as http:
        for _ in range(3):
            assert await asked(http, server.url, b'{"a":1}') == b"ok"
        assert await http.get(f"{server.url}/y?q=1") == (200, b"ok")
        assert server.num_connections == http.num_opened == 1
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert body == b'{"a":1}'
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /x HTTP/1.1"
        assert b"host: " + server.url.partition("://")[2].encode() in lines
        assert {b"content-type: application/json", b"content-length: 7"} < set(lines)
        assert b"authorization: Bearer k" in lines
        assert server.requests[-1].startswith(b"GET /y?q=1 HTTP/1.1\r\n")


@pytest.mark.anyio
async def test_requests_at_a_time_have_connections_of_their_own() -> None:
    async def serve(connection: HostileConnection, server: HostileServer) -> None:
        while True:
            await connection.request()
            while len(server.requests) < 5:
                await anyio.sleep(0.001)
            await connection.say(OK)

    async with hostile_server(serve) as server, open_engine_http() as http:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(asked, http, server.url)
        assert server.num_connections == 5
        await asked(http, server.url)
        assert server.num_connections == 5


@pytest.mark.anyio
@pytest.mark.parametrize("reads_first", [False, True])
async def test_a_kept_connection_that_the_engine_closes_costs_nobody_an_error(
    reads_first: bool,
) -> None:
    async def serve(connection: HostileConnection, _: HostileServer) -> None:
        await connection.request()
        await connection.say(OK)
        if connection.number:
            await connection.until_closed()
        elif reads_first:
            await connection.request()  # and closes without a byte

    async with hostile_server(serve) as server, open_engine_http() as http:
        for _ in range(2):
            assert await asked(http, server.url) == b"ok"
        assert server.num_connections == 2


@pytest.mark.anyio
async def test_a_fresh_connection_that_is_closed_without_an_answer_is_not_tried_again() -> None:
    async with hostile_server(says_once()) as server, open_engine_http() as http:
        with pytest.raises(EngineUnreachableError) as caught:
            await asked(http, server.url)
        assert not caught.value.refused
        assert server.num_connections == 1


@pytest.mark.anyio
async def test_an_answer_that_had_begun_is_not_asked_for_again() -> None:
    async def serve(connection: HostileConnection, _: HostileServer) -> None:
        await connection.request()
        await connection.say(OK)
        await connection.request()
        await connection.say(b"HTTP/1.1 2")

    async with hostile_server(serve) as server, open_engine_http() as http:
        assert await asked(http, server.url) == b"ok"
        with pytest.raises(EngineUnreachableError):
            await asked(http, server.url)
        assert server.num_connections == 1


@pytest.mark.anyio
async def test_idle_connections_are_closed_before_the_engine_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_connections, "KEEP_ALIVE_S", 0.02)

    async def serve(connection: HostileConnection, server: HostileServer) -> None:
        await connection.request()
        await connection.say(OK)
        await connection.until_closed()
        server.closed.set()

    async with hostile_server(serve) as server, open_engine_http() as http:
        await asked(http, server.url)
        with anyio.fail_after(10):
            await server.closed.wait()
        await asked(http, server.url)
        assert server.num_connections == 2


@pytest.mark.anyio
async def test_nobody_who_listens_is_told_apart_from_nobody_who_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(connection: HostileConnection, _: HostileServer) -> None:
        await connection.until_closed()

    async with open_engine_http() as http:
        async with hostile_server(silent) as server:
            monkeypatch.setattr(engine_connections, "PROBE_S", 0.02)
            with pytest.raises(EngineUnreachableError, match="no answer within") as caught:
                await http.get(f"{server.url}/health")
            assert not caught.value.refused
        with pytest.raises(EngineUnreachableError, match="no connection") as caught:
            await http.get(f"{server.url}/health")
        assert caught.value.refused
        for name in ("no-such-host.invalid", "a" * 70 + ".invalid"):
            with pytest.raises(EngineUnreachableError, match="no connection"):
                await http.send("POST", f"http://{name}:1/x", b"", {})


@pytest.mark.anyio
@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", b"bo", b"dy"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"bo", b"dy"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n", b"body"),
    ],
)
async def test_answers_that_end_with_their_connection_do(pieces: tuple[bytes, ...]) -> None:
    async with hostile_server(says_once(*pieces)) as server, open_engine_http() as http:
        for number in (1, 2):
            assert await asked(http, server.url) == b"body"
            assert server.num_connections == number


@pytest.mark.anyio
@pytest.mark.parametrize("more", [b"junk", OK, b"HTTP/1.1 200 OK\r\n"])
async def test_what_nobody_asked_for_is_nobodys_answer(more: bytes) -> None:
    async with hostile_server(says(OK + more)) as server, open_engine_http() as http:
        assert await asked(http, server.url) == b"ok"
        assert await asked(http, server.url) == b"ok"
        assert server.num_connections == 2
    async with hostile_server(says(OK, more)) as server, open_engine_http() as http:
        assert await asked(http, server.url) == b"ok"
        await anyio.sleep(0.02)
        assert await asked(http, server.url) == b"ok"
        assert server.num_connections == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    "pieces",
    [
        (b"SSH-2.0-OpenSSH\r\n",),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\n", *(b"X: " + b"x" * 4000 + b"\r\n",) * (MAX_HEAD_BYTES // 4000 + 2)),
        (CHUNKED, b"0\r\nX: ", *(b"x" * 8000,) * (MAX_HEAD_BYTES // 8000 + 8)),
        (CHUNKED, b"zz\r\n"),
        (CHUNKED, b"2\r\nabc\r\n"),
    ],
)
async def test_what_is_no_proper_http_is_an_error_that_says_so(pieces: tuple[bytes, ...]) -> None:
    async def serve(connection: HostileConnection, _: HostileServer) -> None:
        await connection.request()
        for piece in pieces:
            await connection.stream.send(piece)
        await connection.until_closed()

    async with hostile_server(serve) as server, open_engine_http() as http:
        with anyio.fail_after(20), pytest.raises(EngineUnreachableError, match="its answer"):
            await asked(http, server.url)


@pytest.mark.anyio
async def test_a_redirect_is_not_followed_but_told() -> None:
    moved = b"HTTP/1.1 307 X\r\nLocation: http://10.0.0.9/\r\nContent-Length: 0\r\n\r\n"
    async with hostile_server(says(moved)) as server, open_engine_http() as http:
        with pytest.raises(EngineUnreachableError, match=r"a redirect to http://10\.0\.0\.9/"):
            await asked(http, server.url)
        with pytest.raises(EngineUnreachableError, match="redirect"):
            await http.get(f"{server.url}/health")


@pytest.mark.anyio
async def test_leaving_at_any_moment_closes_the_connection() -> None:
    async def serve(connection: HostileConnection, server: HostileServer) -> None:
        await connection.request()
        if connection.number == 1:
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome")
        await connection.until_closed()
        server.closed.set()

    async with hostile_server(serve) as server, open_engine_http() as http:
        with anyio.move_on_after(0.05):
            await http.send("POST", f"{server.url}/x", b"{}", {})
        with anyio.fail_after(10):
            await server.closed.wait()
        server.closed = anyio.Event()
        reply = await http.send("POST", f"{server.url}/x", b"{}", {})
        assert await reply.next_bytes() == b"some"
        with anyio.move_on_after(0.05):
            await reply.next_bytes()
        assert not reply.is_at_end
        reply.close()
        with pytest.raises(EngineUnreachableError, match="closed"):
            await reply.next_bytes()
        with anyio.fail_after(10):
            await server.closed.wait()


@pytest.mark.anyio
async def test_closing_a_reply_wakes_who_waits_for_it() -> None:
    async def serve(connection: HostileConnection, _: HostileServer) -> None:
        await connection.request()
        await connection.say(CHUNKED)
        await connection.until_closed()

    async with hostile_server(serve) as server, open_engine_http() as http:
        reply = await http.send("POST", f"{server.url}/x", b"{}", {})

        async def wait() -> None:
            with pytest.raises(EngineUnreachableError):
                await reply.next_bytes()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.sleep(0.01)
                reply.close()


@pytest.mark.anyio
async def test_a_reply_that_is_closed_complete_leaves_its_connection_to_others() -> None:
    async with hostile_server(says(OK)) as server, open_engine_http() as http:
        for _ in range(3):
            reply = await http.send("POST", f"{server.url}/x", b"{}", {})
            while not reply.is_at_end:
                await anyio.sleep(0.001)
            reply.close()
            reply.close()
            assert await reply.next_bytes() == b""
        assert server.num_connections == 1


@pytest.mark.anyio
async def test_large_bodies_go_both_ways() -> None:
    body = bytes(range(256)) * 8000

    async def serve(connection: HostileConnection, server: HostileServer) -> None:
        while True:
            await connection.request()
            sent = server.requests[-1].partition(b"\r\n\r\n")[2]
            await connection.stream.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(sent)
            )
            await connection.stream.send(sent)

    async with hostile_server(serve) as server, open_engine_http() as http:
        for _ in range(2):
            assert await asked(http, server.url, body) == body
        assert server.num_connections == 1


@pytest.mark.anyio
async def test_tls_is_spoken_and_names_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    with authority.cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        for name, is_good in (("127.0.0.1", True), ("elsewhere.invalid", False)):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert(name).configure_cert(context)
            async with hostile_server(says(OK), context) as server, open_engine_http() as http:
                if is_good:
                    for _ in range(2):
                        assert await asked(http, server.url) == b"ok"
                    assert server.num_connections == 1
                else:
                    with pytest.raises(EngineUnreachableError, match="no connection"):
                        await asked(http, server.url)


@pytest.mark.anyio
async def test_a_header_that_would_make_another_one_is_refused() -> None:
    async with hostile_server(says(OK)) as server, open_engine_http() as http:
        for name, value in (("x-a", "1\r\nx-b: 2"), ("x-a", "1\n"), ("x-a", "\0"), ("x:y", "1")):
            with pytest.raises(ValueError, match=r"x[-:]"):
                await http.send("POST", f"{server.url}/x", b"", {name: value})
        assert server.requests == []


HEADER_TEXT = st.text(st.characters(max_codepoint=255), max_size=12)


@given(st.dictionaries(HEADER_TEXT, HEADER_TEXT, max_size=4), st.text(max_size=20))
def test_a_head_has_the_lines_it_should_have_or_is_refused(
    headers: dict[str, str], path: str
) -> None:
    address, target = split_url("http://host:1/" + path)
    try:
        head = request_head("POST", target, Origin.of(address), headers, 3)
    except ValueError:
        return
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert lines[0].count(b" ") == 2
    assert lines[0].startswith(b"POST /")
    given_lines = [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
    assert lines[1:] == [b"host: host:1", b"accept: */*", *given_lines, b"content-length: 3"]


def test_where_a_request_goes_is_read_from_its_url() -> None:
    assert split_url("http://h:1/a/b?c=d%20e#f") == ("http://h:1", "/a/b?c=d%20e")
    assert split_url("http://h") == ("http://h", "/")
    assert split_url("http://h/a b\r\nx") == ("http://h", "/a%20b%0D%0Ax")
    origin = Origin.of("https://me:s%40crt@[::1]")
    assert (origin.host, origin.port, origin.is_tls) == ("::1", 443, True)
    assert origin.head.startswith("host: [::1]\r\n")
    head = request_head("GET", "/", origin, {}, 0)
    assert b"authorization: Basic bWU6c0BjcnQ=\r\n" in head
    assert b"content-length" not in head
    own = request_head("GET", "/", origin, {"authorization": "Bearer x"}, 0)
    assert own.count(b"authorization") == 1
    with pytest.raises(ValueError, match="HOST"):
        Origin.of("http://:80")
