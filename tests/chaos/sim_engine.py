"""An engine of words: says ``w0 w1 w2 ...``, goes on where it is told to, and breaks as told.

It is vLLM as the gateway sees it: chat completions by server-sent events, a prefix cache with KV
events, health and metrics. What it generated stays computed; when it crashes, all of it is gone.
"""

import json
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import anyio

from agent_runtime.backends.kv_event_wire import EventBatch, WireEvent, frames
from agent_runtime.backends.vllm_servers.engine_http import EngineUnreachableError
from tests.word_kv import BLOCK, WordKv, chat_words

MODEL = "words"
BUSY = 503
MAX_RUNNING = 6
"""More requests than that are answered 503, as a server with a queue limit does."""


class Health(Enum):
    UP = auto()
    HUNG = auto()
    """Takes connections and answers nothing."""
    CRASHED = auto()


class SimEngine:
    """One engine.

    Attributes:
        slowness: Factor on the time between two tokens.
        running: Requests under way.
        num_completed: Replies generated to their end, by what the prompt's last word is.
        batches: Of KV events, as they were published since the start; lines read them.
        on_publish: Told of every batch.
    """

    def __init__(self, number: int, num_blocks: int) -> None:
        self.number = number
        self.url = f"http://engine-{number}:8000"
        self._num_blocks = num_blocks
        self.health = Health.UP
        self.slowness = 1.0
        self.running: dict[SimReply, None] = {}
        self.num_completed: dict[str, int] = {}
        self.batches: list[list[bytes]] = []
        self.on_publish: list[Any] = []
        self.num_lives = 1
        self._start()

    def _start(self) -> None:
        self.kv = WordKv(self.number + 100 * self.num_lives, self._num_blocks, self._published)
        self.batches = []

    def crash(self) -> None:
        """Break off everything, and lose the KV."""
        self.health = Health.CRASHED
        for reply in list(self.running):
            reply.break_off("the engine crashed")
        self.num_lives += 1
        self._start()

    def hang(self) -> None:
        """Answer nothing any more."""
        self.health = Health.HUNG

    def recover(self) -> None:
        """Be well again: a crashed one begins empty, one that hung goes on."""
        if self.health is Health.HUNG:
            for reply in self.running:
                reply.go_on.set()
        self.health, self.slowness = Health.UP, 1.0

    def page(self, path: str) -> tuple[int, bytes]:
        """Answer a GET."""
        match path:
            case "/health":
                return 200, b""
            case "/v1/models":
                card = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 8192}
                return 200, json.dumps({"object": "list", "data": [card]}).encode()
            case "/kv_event_sources":
                here = f"tcp://engine-{self.number}"
                source = {"endpoint": f"{here}:1", "replay_endpoint": f"{here}:2", "topic": ""}
                return 200, json.dumps({"0": source}).encode()
            case "/metrics":
                return 200, (
                    f'vllm:num_requests_running{{engine="0"}} {float(len(self.running))}\n'
                    f'vllm:kv_cache_usage_perc{{engine="0"}} 0.25\n'
                    f'vllm:cache_config_info{{block_size="{BLOCK}",'
                    f'num_gpu_blocks="{self._num_blocks}"}} 1.0\n'
                ).encode()
            case _:
                return 404, b"{}"

    def ask(self, body: dict[str, Any], token_s: float) -> "SimReply":
        """Begin to answer a call."""
        if len(self.running) >= MAX_RUNNING:
            return SimReply(self, BUSY, [json.dumps({"error": {"message": "full"}}).encode()], 0.0)
        words, session_id = chat_words(body["messages"]), body.get("session_id")
        goes_on = bool(body.get("continue_final_message"))
        first = 0
        if goes_on:
            said = body["messages"][-1]["content"].split()
            first = len(said)
        else:
            words.append("<assistant>")
        turn = next(w for w in reversed(words) if w.startswith("turn:"))
        limit = body["max_tokens"]
        reply_words = [f"w{first + index}" for index in range(limit)]
        num_cached = self.kv.compute(words, session_id)
        head = {"id": f"id-{turn}", "object": "chat.completion.chunk", "created": 0}
        chunks = [_event(head, [_choice({"role": "assistant", "content": ""})])]
        for index, word in enumerate(reply_words):
            last = index == limit - 1
            text = word if last else f"{word} "
            chunks.append(_event(head, [_choice({"content": text}, "length" if last else None)]))
        usage = {
            "prompt_tokens": len(words),
            "completion_tokens": limit,
            "total_tokens": len(words) + limit,
            "prompt_tokens_details": {"cached_tokens": num_cached},
        }
        chunks.append(_event(head, [], usage) + b"data: [DONE]\n\n")
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(reply_words)}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            chunks, token_s = [json.dumps(whole).encode()], token_s * limit
        reply = SimReply(self, 200, chunks, token_s)
        reply.finishes = (turn, [*words, *reply_words], session_id)
        self.running[reply] = None
        return reply

    def finished(self, reply: "SimReply") -> None:
        """Take a reply off the books; one that came to its end is in the KV."""
        if reply.finishes is not None and reply in self.running:
            turn, words, session_id = reply.finishes
            self.kv.compute(words, session_id)
            self.num_completed[turn] = self.num_completed.get(turn, 0) + 1
        self.running.pop(reply, None)

    def _published(self, events: list[WireEvent]) -> None:
        batch = EventBatch(anyio.current_time(), events, 0)
        self.batches.append(frames("", len(self.batches), batch))
        for told in self.on_publish:
            told(self, self.batches[-1])


class SimReply:
    """An ``EngineReply``."""

    retry_after = ""
    content_type = "text/event-stream"
    location = ""

    def __init__(self, engine: SimEngine, status: int, chunks: Sequence[bytes], token_s: float):
        self.status = status
        self.finishes: tuple[str, list[str], str | None] | None = None
        self.go_on = anyio.Event()
        self._engine = engine
        self._chunks = list(reversed(chunks))
        self._token_s = token_s
        self._broken: str | None = None
        self._closed = False

    async def next_bytes(self) -> bytes:
        """Return the next chunk, a step later."""
        self._check()
        if not self._chunks:
            return b""
        if self._token_s:
            with anyio.move_on_after(self._token_s * self._engine.slowness):
                while not self._is_over:
                    self.go_on = anyio.Event()
                    await self.go_on.wait()
        while self._engine.health is Health.HUNG and not self._is_over:
            self.go_on = anyio.Event()
            await self.go_on.wait()
        self._check()
        chunk = self._chunks.pop()
        if not self._chunks:
            self._engine.finished(self)
        return chunk

    @property
    def is_at_end(self) -> bool:
        """Whether all has come."""
        return not self._chunks

    @property
    def _is_over(self) -> bool:
        return self._closed or self._broken is not None

    def break_off(self, why: str) -> None:
        """Break the connection."""
        self._broken = why
        self._engine.running.pop(self, None)
        self.go_on.set()

    def close(self) -> None:
        """Have the engine stop."""
        self._closed = True
        self._engine.running.pop(self, None)
        self.go_on.set()

    def _check(self) -> None:
        if self._broken is not None:
            raise EngineUnreachableError(self._broken, refused=False)
        if self._closed:
            raise EngineUnreachableError("the reply was closed", refused=False)


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(head: dict[str, Any], choices: Any, usage: dict[str, Any] | None = None) -> bytes:
    chunk = {**head, "choices": choices}
    if usage is not None:
        chunk["usage"] = usage
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
