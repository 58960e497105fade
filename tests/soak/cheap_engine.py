"""An engine on sockets that costs little, dies when told, and comes back empty."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.lowlevel
import httptools
import zmq
from anyio.abc import SocketAttribute, SocketStream

from agent_runtime.backends.kv_event_wire import EventBatch, WireEvent
from agent_runtime.look_alikes.kv_event_publisher import KvEventPublisher
from tests.soak.engine_replies import Reply, reply_to, words_of
from tests.soak.http_wire import MAX_READ_BYTES, Message
from tests.word_kv import BLOCK, WordKv

MODEL = "words"
MAX_WORDS = 2000
SSE = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WRONG = b'{"error": {"message": "messages: too long, or none", "type": "BadRequestError"}}'


class CheapEngine:
    """One engine.

    Args:
        number: Which.
        num_blocks: What its KV holds.
        context: Of its sockets for KV events.

    Attributes:
        port: Where it listens, from its first life on.
        num_deaths: So far.
    """

    def __init__(
        self, number: int, num_blocks: int, context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        self._number, self._num_blocks = number, num_blocks
        self._events, self._replays = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        for socket in (self._events, self._replays):
            socket.bind_to_random_port("tcp://127.0.0.1")
        self.port = 0
        self.num_deaths = self._num_replies = 0
        self._life = anyio.CancelScope()
        self._lives = anyio.Event()
        self._begin()

    def _begin(self) -> None:
        self._publisher = KvEventPublisher(self._events, self._replays)
        self._kv = WordKv(self._number + 1000 * self.num_deaths, self._num_blocks, self._publish)

    def _publish(self, events: list[WireEvent]) -> None:
        self._publisher.publish(EventBatch(0.0, events, 0))

    async def run(self, dead_s: float) -> None:
        """Live, be dead for so long after each death, and live again, until cancelled."""
        while True:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port)
            self.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
            self._lives.set()
            with anyio.CancelScope() as self._life:
                async with listener, anyio.create_task_group() as tasks:
                    tasks.start_soon(self._publisher.answer_replays)
                    await listener.serve(self._serve, tasks)
            self.num_deaths += 1
            self._begin()
            await anyio.sleep(dead_s)

    async def until_it_lives(self) -> None:
        """Return once it listens."""
        await self._lives.wait()

    def die(self) -> None:
        """Break off everything; all KV is gone."""
        self._lives = anyio.Event()
        self._life.cancel()

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            try:
                while True:
                    request = Message()
                    parser = httptools.HttpRequestParser(request)
                    while not request.is_complete:
                        parser.feed_data(await stream.receive(MAX_READ_BYTES))
                    await self._answer(request, stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return  # the gateway hung up

    async def _answer(self, request: Message, stream: SocketStream) -> None:
        path = request.url.decode()
        if not request.body:
            page = self._pages().get(path)
            await stream.send(_whole(b"{}", b"404 Not Found") if page is None else _whole(page))
            return
        asked: dict[str, Any] = json.loads(request.body)
        try:
            words, session = words_of(path, asked), asked.get("session_id")
        except (KeyError, TypeError):
            words, session = [], None
        if not 0 < len(words) < MAX_WORDS:
            await stream.send(_whole(WRONG, b"400 Bad Request"))
            return
        self._num_replies += 1
        number = self._number * 10_000_000 + self._num_replies
        reply = reply_to(path, asked, number, self._kv.compute(words, session))
        if asked.get("stream"):
            await self._stream(reply, stream)
        else:
            await stream.send(_whole(reply.whole()))
        self._kv.compute([*words, *reply.said], session)

    async def _stream(self, reply: Reply, stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n" + SSE)
        for event in reply.events():
            await stream.send(b"%x\r\n%b\r\n" % (len(event), event))
            await anyio.lowlevel.checkpoint()
        await stream.send(b"0\r\n\r\n")

    def _pages(self) -> dict[str, bytes]:
        card = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": MAX_WORDS}
        kv = f'block_size="{BLOCK}",num_gpu_blocks="{self._num_blocks}"'
        return {
            "/health": b"",
            "/version": b'{"version":"0.32.0"}',
            "/v1/models": json.dumps({"object": "list", "data": [card]}).encode(),
            "/kv_event_sources": json.dumps({"0": self._publisher.source()}).encode(),
            "/metrics": (
                'vllm:num_requests_running{engine="0"} 0.0\n'
                'vllm:num_requests_waiting{engine="0"} 0.0\n'
                'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
                f"vllm:cache_config_info{{{kv}}} 1\n"
            ).encode(),
        }


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body
