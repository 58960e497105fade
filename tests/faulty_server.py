"""A chat server of a few lines that fails on demand."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio

TOKEN_S = 0.01
FIRST_S = 0.1

Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class FaultyServer:
    """Answers chat completions, a word a token; tests say which requests go wrong.

    Attributes:
        fault: Takes a body and the request's number (0 is the probe's); returns a fault's name.
        first_s: To the first token.
        usage: Whether it tells any.
        continuous: Whether every chunk has its usage, where asked for.
        refuses: Fields that make it answer 400.
        tokens_per_chunk: In every chunk.
        num_tokens: Of a reply, unless the body caps it.
    """

    fault: Callable[[dict[str, Any], int], str | None] = lambda body, number: None
    first_s: float = FIRST_S
    usage: bool = True
    continuous: bool = True
    refuses: tuple[str, ...] = ()
    tokens_per_chunk: int = 1
    num_tokens: int = 10
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        message = await receive()
        if scope["path"] != "/v1/chat/completions":
            await answer(send, 404, b'{"detail": "Not Found"}')
            return
        body = json.loads(message["body"])
        refused = [name for name in self.refuses if name in json.dumps(body)]
        if refused:
            await answer(send, 400, json.dumps({"error": f"unknown field {refused[0]}"}).encode())
            return
        self.bodies.append(body)
        self.headers.append({key.decode(): value.decode() for key, value in scope["headers"]})
        self.at_s.append(anyio.current_time())
        await self._answer(body, self.fault(body, len(self.bodies) - 1), send)

    async def _answer(self, body: dict[str, Any], fault: str | None, send: Send) -> None:
        match fault:
            case "status":
                await answer(send, 503, b"overloaded, come back later")
                return
            case "no stream":
                await answer(send, 200, b'{"choices": []}')
                return
            case "raise":
                raise RuntimeError("the connection is gone")
            case "silence":
                await anyio.sleep(10_000)
            case _:
                pass
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
            }
        )
        await self._stream(body, fault, send)

    async def _stream(self, body: dict[str, Any], fault: str | None, send: Send) -> None:
        cap = body.get("max_tokens") or body.get("max_completion_tokens") or self.num_tokens
        num = cap if body.get("ignore_eos") else min(cap, self.num_tokens)
        if fault == "empty":
            num = 0
        await anyio.sleep(self.first_s)
        await event(send, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for before in range(0, num, self.tokens_per_chunk):
            done = min(num, before + self.tokens_per_chunk)
            if fault and done > num // 2:
                await self._break_off(fault, send)
                return
            chunk: dict[str, Any] = {"choices": [{"delta": {"content": " word" * (done - before)}}]}
            if self.continuous and "continuous_usage_stats" in body.get("stream_options", {}):
                chunk["usage"] = {"prompt_tokens": count(body), "completion_tokens": done}
            await event(send, chunk)
            await anyio.sleep(TOKEN_S * self.tokens_per_chunk)
        await event(send, {"choices": [{"delta": {}, "finish_reason": "length"}]})
        if self.usage and "stream_options" in body:
            usage = {"prompt_tokens": count(body), "completion_tokens": num}
            await event(send, {"choices": [], "usage": usage})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _break_off(self, fault: str, send: Send) -> None:
        match fault:
            case "break":
                raise RuntimeError("the engine died")
            case "end early":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            case "error event":
                await event(send, {"error": {"message": "out of memory", "code": 500}})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            case "garbage":
                await send(
                    {
                        "type": "http.response.body",
                        "body": b"data: {nonsense\n\n",
                        "more_body": False,
                    }
                )
            case _:
                await anyio.sleep(10_000)


def count(body: dict[str, Any]) -> int:
    """Return the prompt's tokens: a word one, a message five, the prompt seven."""
    return 7 + sum(5 + len(message["content"].split()) for message in body["messages"])


async def answer(send: Send, status: int, body: bytes) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json")],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def event(send: Send, data: dict[str, Any]) -> None:
    body = b"data: " + json.dumps(data).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": True})
