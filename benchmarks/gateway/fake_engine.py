"""A server that streams chunks as fast as anybody takes them, and is nothing else of an engine.

    python -m benchmarks.gateway.fake_engine PORT TOKENS [SECONDS_A_STEP]

A plain protocol on sockets: what it costs itself is little beside what is measured with it. As an
engine does, it gives every reply under way one token a step, each in a write of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from typing_extensions import override

HEAD = (
    b'data: {"id":"chatcmpl-4b9a02a6c2f44b5e","object":"chat.completion.chunk",'
    b'"created":1764158400,"model":"fake",'
)
FIRST = (
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
)
TOKEN = (
    b'"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null,"token_ids":null}]}\n\n'
)
LAST = (
    b'"choices":[{"index":0,"delta":{"content":"."},"logprobs":null,"finish_reason":"length"}]}\n\n'
)
USAGE = b'"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":%d,"total_tokens":%d}}\n\n'
DONE = b"data: [DONE]\n\n"
PAGES = {
    b"/v1/models": {"object": "list", "data": [{"id": "fake", "max_model_len": 100_000}]},
    b"/health": {},
    b"/kv_event_sources": {},
}
METRICS = b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100000"} 1.0\n'
STREAM_HEADERS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, steps: Steps, num_tokens: int) -> None:
        self._steps = steps
        self._num_tokens = num_tokens
        self._received = b""
        self._left = 0
        self._has_room = True
        self._transport: Any = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._steps.streams.pop(self, None)

    @override
    def pause_writing(self) -> None:
        self._has_room = False

    @override
    def resume_writing(self) -> None:
        self._has_room = True
        self._steps.wake.set()

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if len(body) < length:
            return
        self._received = b""
        path = head.split(b" ", 2)[1]
        if path == b"/v1/chat/completions":
            self._left = self._num_tokens
            self._transport.write(STREAM_HEADERS)
            self._chunk(HEAD + FIRST)
            self._steps.streams[self] = None
            self._steps.wake.set()
        else:
            page = METRICS if path == b"/metrics" else json.dumps(PAGES.get(path, {})).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(page))
            self._transport.write(page)

    def step(self) -> bool:
        """Send a token if there is room; return whether there was."""
        if not self._has_room:
            return False
        self._left -= 1
        if self._left:
            self._chunk(HEAD + TOKEN)
            return True
        num = self._num_tokens
        self._chunk(HEAD + LAST)
        self._chunk(HEAD + USAGE % (num, num + 20))
        self._chunk(DONE)
        self._transport.write(b"0\r\n\r\n")
        self._steps.streams.pop(self, None)
        return True

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


class Steps:
    """Gives every stream its token, again and again."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self.streams: dict[Connection, None] = {}
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Step until cancelled; wait while nobody has room."""
        while True:
            went_on = [stream.step() for stream in list(self.streams)]
            if any(went_on):
                await asyncio.sleep(self._step_s)
            else:
                self.wake.clear()
                await self.wake.wait()


async def serve(port: int, num_tokens: int, step_s: float) -> None:
    """Serve until cancelled."""
    steps = Steps(step_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(steps, num_tokens), "127.0.0.1", port)
    async with server:
        await steps.run()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("tokens", type=int)
    parser.add_argument("step_s", type=float, nargs="?", default=0.0)
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.tokens, args.step_s))


if __name__ == "__main__":
    main()
