"""Engines that never stop, or say what no engine says: memory and work stay bounded."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.errors import WireFormatError
from agent_runtime.event_stream import MAX_EVENT_BYTES, EventStreamParser
from agent_runtime.gateway.relay.chat_replies import StreamedReply, WholeReply
from agent_runtime.gateway.relay.message_replies import StreamedMessage, WholeMessage
from agent_runtime.gateway.relay.passing_events import MAX_ANSWER_BYTES, WholeEvents
from agent_runtime.gateway.relay.response_replies import StreamedResponse, WholeResponse
from tests.hostile_server import HostileConnection, HostileServer, hostile_server
from tests.served_engines import chat_body, gateway_before

PIECE = b"x" * (1 << 16)
MIB = 1 << 20
PAGES = {
    b"/health": b"",
    b"/v1/models": b'{"data":[{"id":"m","object":"model","max_model_len":4096}]}',
    b"/metrics": b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n',
    b"/kv_event_sources": b"{}",
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    "make",
    [
        EventStreamParser,
        lambda: StreamedReply(wants_usage=True),
        StreamedMessage,
        StreamedResponse,
        WholeReply,
        WholeMessage,
        WholeResponse,
    ],
)
def test_a_line_or_an_answer_without_end_is_given_up(make: Callable[[], Any]) -> None:
    reader = make()
    tracemalloc.start()
    for _ in range(MAX_EVENT_BYTES // len(PIECE)):
        reader.feed(PIECE)
    with pytest.raises(WireFormatError, match=r"more than \d+ bytes"):
        reader.feed(PIECE)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1.5 * max(MAX_EVENT_BYTES, MAX_ANSWER_BYTES)


@given(st.lists(st.sampled_from([b"\n", b"\n\n", b"\r", b"", b"data: a", b"x", b"\r\n"])))
def test_events_are_the_same_however_they_are_cut(pieces: list[bytes]) -> None:
    whole, cutter = b"".join(pieces), WholeEvents()
    passed = b"".join(cutter.take(piece) for piece in pieces)
    assert whole.startswith(passed)
    assert passed.endswith(b"\n\n") or not passed
    assert b"\n\n" not in whole[len(passed) :]
    parser, at_once = EventStreamParser(), EventStreamParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    assert events == at_once.feed(whole)


def says(
    after_head: Callable[[HostileConnection], Any], status: bytes = b"200 OK"
) -> Callable[[HostileConnection, HostileServer], Any]:
    """An engine that is well, but for what it answers to posts."""

    async def serve(connection: HostileConnection, server: HostileServer) -> None:
        while not server.closed.is_set():
            head = await connection.request()
            method, path, _ = head.split(b" ", 2)
            if method == b"POST" or path.startswith(b"/v1/responses"):
                kind = b"content-type: text/event-stream\r\n"
                await connection.say(b"HTTP/1.1 %b\r\n%b\r\n" % (status, kind))
                await after_head(connection)
                return
            page = PAGES.get(path, b"")
            await connection.say(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page)
            )

    return serve


async def without_end(connection: HostileConnection) -> None:
    while True:
        await connection.stream.send(PIECE)


@pytest.mark.anyio
@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_without_end_is_a_502_and_its_engine_is_left(
    streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.gateway.relay.passing_events.MAX_EVENT_BYTES", 2 * MIB)
    monkeypatch.setattr("agent_runtime.gateway.relay.passing_events.MAX_ANSWER_BYTES", 2 * MIB)
    async with (
        hostile_server(says(without_end)) as engine,
        gateway_before([engine.url]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
            body = {**chat_body(stream=streams), "input": "u"}
            answer = await client.post(path, json=body)
            assert answer.status_code == 502
            assert "more than 2097152 bytes" in answer.json()["error"]["message"]


@pytest.mark.anyio
async def test_an_error_without_end_is_told_by_its_beginning() -> None:
    async with (
        hostile_server(says(without_end, b"418 Teapot")) as engine,
        gateway_before([engine.url]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        answer = await client.post("/v1/chat/completions", json=chat_body())
        assert answer.status_code == 418
        assert len(answer.content) == MIB


@pytest.mark.anyio
async def test_an_errand_without_end_is_a_502(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "agent_runtime.backends.vllm_servers.engine_errands.MAX_ANSWER_BYTES"
    monkeypatch.setattr(place, 2 * MIB)
    async with (
        hostile_server(says(without_end)) as engine,
        gateway_before([engine.url]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        for answer in (
            await client.post("/tokenize", json={"prompt": "u"}),
            await client.get("/v1/responses/resp_1"),
        ):
            assert answer.status_code == 502
            assert "more than 2097152 bytes" in answer.json()["error"]["message"]


DEEP = (
    b"[" * 100_000,
    b"[" * 900 + b"]" * 900,
    b'{"choices":' * 3_000,
    b'{"a":' * 900 + b"1" + b"}" * 900,
)


@pytest.mark.anyio
@pytest.mark.parametrize("nested", DEEP)
async def test_nesting_in_an_answer_is_nobodys_500(nested: bytes) -> None:
    async def nest(connection: HostileConnection) -> None:
        for name in (b"choices", b"output", b"content", b"usage", b"response", b"message"):
            body = b'{"id":"r","status":"completed","%b":%b}' % (name, nested)
            await connection.stream.send(b"data: " + body + b"\n\n")
        await connection.stream.send(b"data: [DONE]\n\n")

    async with (
        hostile_server(says(nest)) as engine,
        gateway_before([engine.url]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
            for streams in (False, True):
                body = {**chat_body(stream=streams), "input": "u"}
                answer = await client.post(path, json=body)
                assert answer.status_code in {200, 502}
        served.service.scheduler.check_invariants()
