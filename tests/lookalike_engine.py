"""A small server that answers as vLLM does, with a prefix cache of its own, and fails as told.

Its tokens are words; a reply to a prompt that says nothing else is ``w0 w1 w2 ...``, and goes on
where an unfinished assistant message ends. Its KV is blocks of ``BLOCK`` words, the oldest evicted.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
import zmq
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime.backends.kv_event_wire import EventBatch, WireEvent, frames
from tests.word_kv import BLOCK, WordKv, chat_words

MODEL = "lookalike"


@dataclass
class Faults:
    """What goes wrong, as long as it is set.

    Attributes:
        status: Of every answer to a call; None for success.
        die_after_tokens: The connection breaks when so many tokens of a reply were sent.
        hang_after_tokens: Nothing comes any more when so many tokens of a reply were sent ...
        goes_on: ... until this is set.
        unhealthy: /health answers 503.
        token_s: Between two tokens.
        first_byte_s: Before an answer begins.
    """

    status: int | None = None
    die_after_tokens: int | None = None
    hang_after_tokens: int | None = None
    goes_on: anyio.Event = field(default_factory=anyio.Event)
    unhealthy: bool = False
    token_s: float = 0.0
    first_byte_s: float = 0.0


class _BrokenOffError(Exception):
    """Makes uvicorn drop the connection."""


@dataclass
class LookalikeEngine:
    """One server.

    Attributes:
        salt: Makes its block hashes its own.
        num_blocks: What its KV holds.
        asked: Bodies of all calls.
        headers: Their headers.
        num_running, num_aborted, num_sent: Calls under way, those whose client left, tokens sent.
    """

    salt: int = 0
    num_blocks: int = 1000
    faults: Faults = field(default_factory=Faults)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_running: int = 0
    num_aborted: int = 0
    num_sent: int = 0
    model: str = MODEL
    padding: str = ""
    sent_events: list[tuple[int, list[bytes]]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    kept_from: int = 0
    publisher: Any = None
    ports: tuple[int | str, int | str] | None = None
    dies: Callable[[], bool] = lambda: True
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.kv = WordKv(self.salt, self.num_blocks, self.publish)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._answer, methods=["POST"]),
                Route("/v1/completions", self._answer, methods=["POST"]),
                Route("/v1/messages", self._break_off, methods=["POST"]),
                Route("/v1/responses", self._break_off, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/kv_event_sources", self._sources),
            ]
        )

    def publish(self, events: list[WireEvent]) -> None:
        sequence = len(self.sent_events)
        message = frames("", sequence, EventBatch(float(sequence), events, 0))
        self.sent_events.append((sequence, message))
        if self.publisher is not None and sequence not in self.lost:
            self.publisher.send_multipart(message)

    # What it answers.

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        await anyio.sleep(self.faults.first_byte_s)
        if self.faults.status is not None:
            error = {"message": "as told", "type": "Error", "param": None, "code": "lookalike"}
            return JSONResponse({"error": error}, self.faults.status)
        is_chat = request.url.path.endswith("chat/completions")
        words = chat_words(body["messages"]) if is_chat else str(body["prompt"]).split()
        num_before = sum(word.startswith("w") and word[1:].isdigit() for word in words[-64:])
        goes_on = bool(body.get("continue_final_message")) or not is_chat
        if is_chat and not goes_on:
            words.append("<assistant>")
        first = num_before if goes_on else 0
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 10
        reply = [f"w{first + i}" for i in range(limit)]
        calls = [{"name": "look_up", "arguments": "{}"}] if body.get("tools") else []
        session = body.get("session_id")
        num_cached = self.kv.compute(words, session)
        usage = {
            "prompt_tokens": len(words),
            "completion_tokens": limit,
            "total_tokens": len(words) + limit,
            "prompt_tokens_details": {"cached_tokens": num_cached},
        }
        if body.get("stream"):
            steps = self._stream(body, words, reply, usage, is_chat=is_chat)
            return StreamingResponse(steps, media_type="text/event-stream")
        if self.faults.hang_after_tokens is not None:
            await self.faults.goes_on.wait()
        await anyio.sleep(self.faults.token_s * limit)
        self.kv.compute(words + reply, session)
        text = " ".join(reply)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [{"id": "c1", "type": "function", "function": calls[0]}]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "tool_calls" if calls else "length"}
        choice |= {"message": message} if is_chat else {"text": text}
        return JSONResponse({"id": f"id-{next(self.ids)}", "choices": [choice], "usage": usage})

    async def _stream(
        self,
        body: dict[str, Any],
        words: list[str],
        reply: list[str],
        usage: dict[str, Any],
        *,
        is_chat: bool,
    ) -> AsyncIterator[bytes]:
        kind = "chat.completion.chunk" if is_chat else "text_completion"
        head = {"id": f"id-{self.salt}-{next(self.ids)}", "object": kind, "created": self.salt}
        self.num_running += 1
        ended = False
        try:
            if is_chat:
                yield _event({**head, "choices": [_choice({"role": "assistant", "content": ""})]})
            for index, word in enumerate(reply):
                if index == self.faults.die_after_tokens and self.dies():
                    ended = True
                    raise _BrokenOffError
                if index == self.faults.hang_after_tokens:
                    await self.faults.goes_on.wait()
                await anyio.sleep(self.faults.token_s)
                last = index == len(reply) - 1
                text = word + ("" if last else " ") + self.padding
                choice = _choice({"content": text}) if is_chat else {"index": 0, "text": text}
                choice["finish_reason"] = "length" if last else None
                self.num_sent += 1
                yield _event({**head, "choices": [choice]})
            self.kv.compute(words + reply, body.get("session_id"))
            if (body.get("stream_options") or {}).get("include_usage"):
                yield _event({**head, "choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"
            ended = True
        finally:
            self.num_running -= 1
            self.num_aborted += not ended

    async def _break_off(self, request: Request) -> Response:
        """Begin a message or a response, and break off as told."""
        self.asked.append(json.loads(await request.body()))
        self.headers.append(dict(request.headers))
        begins: dict[str, Any] = {
            "type": "message_start",
            "message": {"id": "m1", "usage": {"input_tokens": 3}},
        }
        delta: dict[str, Any] = {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta"},
        }
        if request.url.path == "/v1/responses":
            response: dict[str, Any] = {"id": "resp_1", "status": "in_progress", "output": []}
            begins = {"type": "response.created", "sequence_number": 0, "response": response}
            delta = {"type": "response.output_text.delta", "sequence_number": 1, "delta": "w0"}

        async def events() -> AsyncIterator[bytes]:
            for event in (begins, delta):
                yield b"event: %b\n" % str(event["type"]).encode() + _event(event)
            await anyio.sleep(0.01)
            raise _BrokenOffError

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _models(self, _: Request) -> Response:
        card = {"id": self.model, "object": "model", "owned_by": "vllm", "max_model_len": 4096}
        return JSONResponse({"object": "list", "data": [card]})

    async def _health(self, _: Request) -> Response:
        return Response(status_code=503 if self.faults.unhealthy else 200)

    async def _metrics(self, _: Request) -> Response:
        return PlainTextResponse(
            f'vllm:num_requests_running{{engine="0"}} {float(self.num_running)}\n'
            'vllm:num_requests_waiting{engine="0"} 0.0\n'
            'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
            f'vllm:cache_config_info{{block_size="{BLOCK}",num_gpu_blocks="{self.num_blocks}"}} 1.0'
        )

    async def _sources(self, _: Request) -> Response:
        if self.ports is None:
            return JSONResponse({})
        events, replay = (f"tcp://*:{port}" for port in self.ports)
        return JSONResponse({"0": {"endpoint": events, "replay_endpoint": replay, "topic": ""}})

    async def serve_replays(self, router: zmq.Socket[bytes]) -> None:
        """Answer requests for events that were missed, until cancelled."""
        with router:
            while True:
                try:
                    client, _, first = router.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    await anyio.sleep(0.005)
                    continue
                for sequence, message in self.sent_events:
                    if sequence >= max(int.from_bytes(first, "big"), self.kept_from):
                        router.send_multipart([client, b"", *message])
                end = (-1).to_bytes(8, "big", signed=True)
                router.send_multipart([client, b"", b"", end, b""])


def _choice(delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


@dataclass
class Running:
    """A server under way; ``stop`` ends it as a crash would."""

    engine: LookalikeEngine
    url: str
    server: uvicorn.Server
    listener: socket.socket

    async def stop(self) -> None:
        """Close the port and every connection."""
        self.server.force_exit = self.server.should_exit = True
        for server in self.server.servers:
            server.close()
        for connection in list(self.server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


@asynccontextmanager
async def running_engine(
    engine: LookalikeEngine, *, port: int = 0, events: bool = False
) -> AsyncIterator[Running]:
    """Serve an engine on a loopback port, with KV events if wanted."""
    config = uvicorn.Config(
        engine.app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with socket.create_server(("127.0.0.1", port)) as listener:
            async with anyio.create_task_group() as tasks:
                if events:
                    engine.publisher = context.socket(zmq.PUB)
                    router = context.socket(zmq.ROUTER)
                    engine.ports = (
                        engine.publisher.bind_to_random_port("tcp://127.0.0.1"),
                        router.bind_to_random_port("tcp://127.0.0.1"),
                    )
                    tasks.start_soon(engine.serve_replays, router)
                tasks.start_soon(server.serve, [listener])
                while not server.started:
                    await anyio.sleep(0.001)
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                yield Running(engine, url, server, listener)
                server.should_exit = True
                tasks.cancel_scope.cancel()
    finally:
        if engine.publisher is not None:
            engine.publisher.close(linger=0)
            engine.publisher = None
        context.destroy(linger=0)
