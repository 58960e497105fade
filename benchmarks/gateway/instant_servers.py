"""Servers that answer at once and cost next to nothing, to measure what stands before them.

    python -m benchmarks.gateway.instant_servers --base-port 21000 --count 128

One process listens on all ports. A chat completion gets a fixed answer; a streamed one
``max_tokens`` chunks, one per stream and turn of the loop, each in a write of its own, as engines
send them. Where a reader is slow, its stream waits. Routers find the routes by which they look for
vLLM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re

import httptools
from typing_extensions import override

MODEL = "instant"
MAX_TOKENS = re.compile(rb'"max_tokens":\s*(\d+)')
STREAM = re.compile(rb'"stream":\s*true')

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Done."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102},
    }
).encode()
CARD = {"id": MODEL, "object": "model", "created": 0, "owned_by": "vllm", "root": MODEL}
MODELS = json.dumps({"object": "list", "data": [{**CARD, "max_model_len": 1 << 20}]}).encode()
METRICS = "".join(
    f'# TYPE vllm:{name} gauge\nvllm:{name}{{engine="0",model_name="{MODEL}"}} 0.0\n'
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
).encode() + (
    b"# TYPE vllm:cache_config_info gauge\n"
    b'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="100000"} 1.0\n'
)
INFO = json.dumps({"model_path": MODEL, "served_model_name": MODEL, "version": "0.32.0"}).encode()


def _whole(body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def _event(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


PAGES = {
    b"/v1/models": _whole(MODELS),
    b"/metrics": _whole(METRICS, b"text/plain; version=0.0.4"),
    b"/health": _whole(b"", b"text/plain"),
    b"/version": _whole(b'{"version":"0.32.0"}'),
}
ANSWERED = _whole(ANSWER)
INFORMED = _whole(INFO)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
CHUNK = _event(
    json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": MODEL,
            "choices": [
                {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
            ],
        }
    ).encode()
)
STREAM_END = _event(b"[DONE]") + b"0\r\n\r\n"


class InstantServer(asyncio.Protocol):
    """One connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", bytearray()
        self._num_left = 0
        self._is_paused = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._num_left = 0

    @override
    def pause_writing(self) -> None:
        self._is_paused = True

    @override
    def resume_writing(self) -> None:
        self._is_paused = False
        if self._num_left:
            self._loop.call_soon(self._send_chunk)

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._url = url
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser: answer."""
        if self._body and STREAM.search(self._body):
            found = MAX_TOKENS.search(self._body)
            self._num_left = int(found[1]) if found else 16
            self._transport.write(STREAM_HEAD)
            self._loop.call_soon(self._send_chunk)
        elif self._body:
            self._transport.write(ANSWERED)
        else:
            self._transport.write(PAGES.get(self._url.partition(b"?")[0], INFORMED))

    def _send_chunk(self) -> None:
        if self._is_paused or self._num_left == 0:
            return
        self._num_left -= 1
        if self._num_left:
            self._transport.write(CHUNK)
            self._loop.call_soon(self._send_chunk)
        else:
            self._transport.write(CHUNK + STREAM_END)


async def serve(base_port: int, count: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    for port in range(base_port, base_port + count):
        await loop.create_server(lambda: InstantServer(loop), "127.0.0.1", port, backlog=512)
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-port", type=int, default=21_000)
    parser.add_argument("--count", type=int, default=128)
    args = parser.parse_args()
    asyncio.run(serve(args.base_port, args.count))


if __name__ == "__main__":
    main()
