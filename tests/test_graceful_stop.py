"""``panjiu serve`` told to stop: it drains, and cuts off what takes too long. Real processes."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import Process

from tests.lookalike_engine import Faults, LookalikeEngine, running_engine
from tests.served_command import SERVE
from tests.served_engines import chat_body

pytestmark = pytest.mark.anyio
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
SAID = {"role": "user", "content": "hello"}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [SAID], "max_tokens": 8},
    COMPLETIONS: {"prompt": "hello", "max_tokens": 8},
    MESSAGES: {"messages": [SAID], "max_tokens": 8, "model": "m"},
    RESPONSES: {"input": "hello", "max_output_tokens": 16},
}
UNAVAILABLE = 503


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Gateway:
    """A server in a process of its own, which does not hold up the engines in this one.

    Attributes:
        process: Runs it.
        said: On its standard error, so far.
    """

    process: Process
    said: str = ""

    @property
    def url(self) -> str:
        found = re.search(r"listening on (http://\S+)/v1", self.said)
        assert found is not None
        return found[1]

    async def until_it_says(self, words: str) -> None:
        assert self.process.stderr is not None
        while words not in self.said:
            self.said += (await self.process.stderr.receive()).decode()

    async def ended(self) -> int:
        """Hear all of it; return the exit code."""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.said += data.decode()
        return await self.process.wait()

    @property
    def last_words(self) -> str:
        return self.said.splitlines()[-1]


@asynccontextmanager
async def started(*options: str) -> AsyncIterator[Gateway]:
    process = await anyio.open_process([*SERVE, *options], stdin=None, stdout=None)
    async with process:
        try:
            yield Gateway(process)
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def gateway(*options: str) -> AsyncIterator[Gateway]:
    async with started(*options) as served:
        await served.until_it_says("Ctrl-C stops")
        yield served


async def until_draining(client: httpx2.AsyncClient) -> httpx2.Response:
    with anyio.fail_after(30):
        while (answer := await client.get("/ready")).status_code != UNAVAILABLE:
            await anyio.sleep(0.01)
    return answer


class Streamed:
    """An answer that is read in a task; ``text`` grows."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: httpx2.Headers = httpx2.Headers()
        self.text = ""
        self.began = anyio.Event()

    async def read(self, client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> None:
        async with client.stream("POST", path, json=body) as answer:
            self.status, self.headers = answer.status_code, answer.headers
            async for piece in answer.aiter_text():
                self.text += piece
                self.began.set()


def hanging(num_blocks: int = 1000) -> LookalikeEngine:
    return LookalikeEngine(num_blocks=num_blocks, faults=Faults(hang_after_tokens=1))


async def test_turns_under_way_end_while_new_ones_and_new_sessions_are_refused() -> None:
    engine = hanging()
    async with (
        running_engine(engine) as running,
        gateway("--engine", running.url) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as client,
    ):
        stream, whole = Streamed(), Streamed()
        async with anyio.create_task_group() as tasks:
            asked = chat_body(stream=True, session_id="mine")
            tasks.start_soon(stream.read, client, CHAT, asked)
            tasks.start_soon(whole.read, client, COMPLETIONS, BODIES[COMPLETIONS])
            await stream.began.wait()
            while len(engine.asked) < 2:
                await anyio.sleep(0.01)
            assert (await client.get("/ready")).status_code == 200
            served.process.send_signal(signal.SIGTERM)

            ready = await until_draining(client)
            assert ready.headers["connection"] == "close"
            for path, body in BODIES.items():
                refused = await client.post(path, json=body)
                assert refused.status_code == UNAVAILABLE
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.headers["connection"] == "close"
                assert "shutting down" in refused.json()["error"]["message"]
                assert (refused.json().get("type") == "error") == (path == MESSAGES)
            for path in ("/v1/sessions", "/v1/sessions/mine/fork"):
                assert (await client.post(path)).status_code == UNAVAILABLE
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/v1/sessions/mine")).json()["state"] == "running"
            assert len(engine.asked) == 2
            engine.faults.goes_on.set()
        words = [f"w{number}" for number in range(8)]
        assert all(word in stream.text for word in words)
        assert stream.text.endswith("data: [DONE]\n\n")
        assert json.loads(whole.text)["choices"][0]["text"] == " ".join(words)
        assert whole.headers["connection"] == "close"
        assert await served.ended() == 0
    assert "draining: 2 requests under way" in served.said
    assert served.last_words == "stopped"


async def test_after_the_deadline_all_that_is_left_ends_with_an_error_held_turns_too() -> None:
    engine = hanging(num_blocks=24)
    options = ("--drain-s", "0.3", "--hold-grace", "0.01")
    async with (
        running_engine(engine) as running,
        gateway("--engine", running.url, *options) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as client,
    ):
        runs, held, waits = Streamed(), Streamed(), Streamed()
        long = "word " * 40
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runs.read, client, CHAT, chat_body(long, stream=True))
            while "w0" not in runs.text:
                await anyio.sleep(0.01)
            tasks.start_soon(held.read, client, CHAT, chat_body(f"a {long}", stream=True))
            await held.began.wait()
            assert held.text.startswith(": held")
            tasks.start_soon(waits.read, client, CHAT, chat_body(f"b {long}"))
            while "panjiu_held_turns 2.0" not in (await client.get("/metrics")).text:
                await anyio.sleep(0.01)
            served.process.send_signal(signal.SIGTERM)
        for one in (runs, held):
            assert "shutting down" in one.text
            assert one.text.endswith("data: [DONE]\n\n")
        assert waits.status == UNAVAILABLE
        assert int(waits.headers["retry-after"]) >= 1
        assert await served.ended() == 0
        with anyio.fail_after(10):
            while engine.num_running:
                await anyio.sleep(0.01)
    assert "stopped: 3 requests cut off" in served.last_words
    assert len(engine.asked) == 1


async def test_a_second_signal_ends_turns_at_once() -> None:
    engine = hanging()
    async with (
        running_engine(engine) as running,
        gateway("--engine", running.url, "--drain-s", "3600") as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as client,
    ):
        stream = Streamed()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.read, client, CHAT, chat_body(stream=True))
            await stream.began.wait()
            served.process.send_signal(signal.SIGINT)
            await until_draining(client)
            served.process.send_signal(signal.SIGINT)
        assert stream.text.endswith("data: [DONE]\n\n")
        assert "shutting down" in stream.text
        assert await served.ended() == 0
    assert "stopped: 1 request cut off" in served.last_words


async def test_who_does_not_read_is_not_waited_for_after_a_second_signal() -> None:
    engine = LookalikeEngine(padding="x" * 20_000)
    async with running_engine(engine) as running, gateway("--engine", running.url) as served:
        address = served.url.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1]))) as client:
            body = json.dumps(chat_body(stream=True) | {"max_tokens": 2000}).encode()
            client.sendall(
                b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n"
                % (CHAT.encode(), len(body))
                + body
            )
            sent = -1
            while sent != engine.num_sent or not sent:  # until nothing moves any more
                sent = engine.num_sent
                await anyio.sleep(0.3)
            served.process.send_signal(signal.SIGTERM)
            async with httpx2.AsyncClient(base_url=served.url) as other:
                await until_draining(other)
            served.process.send_signal(signal.SIGTERM)
            assert await served.ended() == 0
    assert served.last_words.startswith("stopped: 1 request cut off")


async def test_the_emulated_rack_drains_and_is_done() -> None:
    options = ("--model", "qwen3-8b", "--replicas", "1", "--speed", "20")
    async with (
        gateway(*options) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as client,
    ):
        stream = Streamed()
        async with anyio.create_task_group() as tasks:
            body = {**BODIES[CHAT], "stream": True, "max_tokens": 2000, "ignore_eos": True}
            tasks.start_soon(stream.read, client, CHAT, body)
            await stream.began.wait()
            served.process.send_signal(signal.SIGTERM)
        assert stream.text.endswith("data: [DONE]\n\n")
        assert '"error"' not in stream.text
        assert '"finish_reason":"length"' in stream.text
        assert await served.ended() == 0
    assert served.last_words == "stopped"


async def test_the_emulated_rack_cuts_every_dialect_off_in_its_own_words() -> None:
    options = ("--model", "qwen3-8b", "--replicas", "1", "--speed", "0.05", "--drain-s", "0")
    ends = {
        CHAT: "data: [DONE]",
        COMPLETIONS: "data: [DONE]",
        MESSAGES: "event: error",
        RESPONSES: "event: response.failed",
    }
    async with (
        gateway(*options) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as client,
    ):
        streams = {path: Streamed() for path in BODIES}
        async with anyio.create_task_group() as tasks:
            for path, body in BODIES.items():
                longer = {name: 1000 for name in body if name.startswith("max_")}
                asked = {**body, **longer, "stream": True, "model": "qwen3-8b"}
                tasks.start_soon(streams[path].read, client, path, asked)
            for one in streams.values():
                await one.began.wait()
            served.process.send_signal(signal.SIGTERM)
        for path, one in streams.items():
            assert "shutting down" in one.text, path
            assert ends[path] in one.text, path
        assert await served.ended() == 0
    assert "stopped: 4 requests cut off" in served.said


async def test_a_gateway_that_waits_for_its_first_engine_can_be_stopped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with started("--engine", f"http://127.0.0.1:{silent.getsockname()[1]}") as served:
            await anyio.wait_readable(silent)  # it is looked at
            served.process.send_signal(signal.SIGTERM)
            assert await served.ended() == 0
    assert served.last_words == "stopped"


@pytest.mark.parametrize("streams", [True, False])
async def test_a_paced_turn_is_cut_off_though_its_server_says_nothing(streams: bool) -> None:
    engine = LookalikeEngine(faults=Faults(hang_after_tokens=0))
    options = ("--model", "qwen3-8b", "--replicas", "1", "--speed", "20", "--drain-s", "0")
    async with (
        running_engine(engine) as running,
        gateway("--paced", f"{running.url}/v1", *options) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as client,
    ):
        answer = Streamed()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer.read, client, CHAT, chat_body(stream=streams))
            while not engine.asked:
                await anyio.sleep(0.01)
            served.process.send_signal(signal.SIGTERM)
        assert "shutting down" in answer.text
        assert await served.ended() == 0
        with anyio.fail_after(10):
            while engine.num_running:
                await anyio.sleep(0.01)
    assert "stopped: 1 request cut off" in served.said
