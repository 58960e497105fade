"""An engine of words: says ``w0 w1 w2 ...``, goes on where it is told to, and breaks as told.

It is vLLM as the gateway sees it: chat completions and responses, which it keeps, a prefix cache
with KV events, health and metrics. What it generated stays computed; when it crashes, all of it is
gone.
"""

import json
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

import anyio

from agent_runtime.backends.kv_event_wire import EventBatch, WireEvent, frames
from agent_runtime.backends.vllm_servers.engine_http import EngineUnreachableError
from tests.chaos.sim_apis import (
    Asked,
    chat_answer,
    chat_asked,
    item_messages,
    response_answer,
    response_asked,
)
from tests.word_kv import BLOCK, WordKv

MODEL = "words"
BUSY, NOT_FOUND = 503, 404
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
        clock_s: How far its clock is off.
        seen_results: Ids of the tool calls whose results it was told.
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
        self.clock_s = 0.0
        self.seen_results: set[str] = set()
        self.running: dict[SimReply, None] = {}
        self.num_completed: dict[str, int] = {}
        self.batches: list[list[bytes]] = []
        self.on_publish: list[Any] = []
        self.num_lives = 1
        self._start()

    def _start(self) -> None:
        self._responses: dict[str, list[Any]] = {}
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
            case _ if path.removeprefix("/v1/responses/") in self._responses:
                return 200, json.dumps({"id": path.removeprefix("/v1/responses/")}).encode()
            case _:
                return NOT_FOUND, b"{}"

    def answered(self, status: int, page: bytes) -> "SimReply":
        """Return a page as a reply."""
        return SimReply(self, status, [page], 0.0)

    def ask(self, path: str, body: dict[str, Any], token_s: float) -> "SimReply":
        """Begin to answer a call."""
        if len(self.running) >= MAX_RUNNING:
            return self._refused(BUSY, "full")
        if path != "/v1/responses":
            self.seen_results |= {
                m["tool_call_id"] for m in body["messages"] if m["role"] == "tool"
            }
            asked = chat_asked(body)
            return self._begun(asked, body, chat_answer, token_s)
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self._responses:
            return self._refused(NOT_FOUND, f"Response with id '{previous}' not found.")
        items = [*self._responses.get(previous or "", ()), *body["input"]]
        response_id = f"resp-{self.number}-{self.num_lives}-{len(self._responses)}"
        asked = response_asked({**body, "input": items}, (), response_id)
        said = {"role": "assistant", "content": " ".join(asked.said)}
        self._responses[response_id] = [*item_messages(items), said]
        return self._begun(asked, body, response_answer, token_s)

    def _refused(self, status: int, message: str) -> "SimReply":
        return self.answered(status, json.dumps({"error": {"message": message}}).encode())

    def _begun(
        self,
        asked: Asked,
        body: dict[str, Any],
        answer: Callable[[Asked, int], list[bytes]],
        token_s: float,
    ) -> "SimReply":
        session_id = body.get("session_id")
        chunks = answer(asked, self.kv.compute(asked.words, session_id))
        if not asked.streams:
            token_s *= len(asked.said)
        reply = SimReply(self, 200, chunks, token_s)
        reply.finishes = (asked.turn, [*asked.words, *asked.said], session_id)
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
        batch = EventBatch(anyio.current_time() + self.clock_s, events, 0)
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
