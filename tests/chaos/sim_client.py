"""A session as its client sees it: turn after turn, each asked for until it was answered whole.

What it checks: the words of a reply come in order, none twice and none missing; what can not go on
ends with an error that says so; nothing is answered that was not asked.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random  # noqa: TID251 - seeded by the plan
from typing import Any

import anyio

from agent_runtime.asgi_exchange import AsgiExchange, AsgiRequest
from agent_runtime.errors import AgentRuntimeError
from tests.chaos.sim_gateway import GatewayDownError, SimGateway
from tests.chaos.violation import ViolationError

TURN_S = 60.0
"""No client waits longer for a turn; then it asks again."""

RETRY_STATUSES = {429, 502, 503, 504}


@dataclass
class SimClient:
    """One session.

    Attributes:
        name: Of the session.
        num_done: Turns answered.
        num_attempts: By turn.
        vanishes: Leave within the turn under way, when it is set.
        tool_s: How long the tool that runs next takes.
        speaks_responses: Whether it sends what is new with the id of the response before, and not
            all messages.
        previous: That response, and the gateway's life in which it was told; None for none.
    """

    name: str
    num_turns: int
    rng: Random
    log: Callable[[str], None]
    messages: list[dict[str, Any]] = field(default_factory=list)
    num_done: int = 0
    num_attempts: dict[str, int] = field(default_factory=dict)
    vanishes: anyio.Event = field(default_factory=anyio.Event)
    tool_s: float = 0.0
    speaks_responses: bool = False
    previous: tuple[str, int] | None = None

    async def run(self, gateway: SimGateway) -> None:
        """Have all turns answered."""
        for number in range(self.num_turns):
            turn = f"turn:{self.name}:{number}"
            said = " ".join(f"{self.name}.{number}.{i}" for i in range(self.rng.randint(1, 40)))
            self.messages.append({"role": "user", "content": f"{said} {turn}"})
            num_words = self.rng.randint(1, 25)
            wait_s = 0.05
            while not await self._asked(gateway, turn, num_words):
                await anyio.sleep(wait_s * self.rng.uniform(0.5, 1.5))
                wait_s = min(2.0, 2 * wait_s)
            self.num_done += 1
            await anyio.sleep(max(self.tool_s, self.rng.choice((0.0, 0.01, 0.3, 2.0))))
            self.tool_s = 0.0

    async def _asked(self, gateway: SimGateway, turn: str, num_words: int) -> bool:
        """Ask for a turn; return whether it was answered whole."""
        self.num_attempts[turn] = self.num_attempts.get(turn, 0) + 1
        streams = self.rng.random() < 0.8
        path, body = self._body(num_words, streams=streams)
        self.vanishes = anyio.Event()
        words: str | None = None
        with anyio.move_on_after(TURN_S):
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._vanish, tasks.cancel_scope)
                    words = await self._answer(gateway, path, body)
                    tasks.cancel_scope.cancel()
            except* (GatewayDownError, AgentRuntimeError) as errors:
                self.log(f"{turn}: {errors.exceptions[0]}")
        if words is None:
            return False
        wanted = " ".join(f"w{index}" for index in range(num_words))
        if words != wanted:
            raise ViolationError(f"{turn} was answered {words!r} instead of {wanted!r}")
        self.log(f"{turn}: answered at attempt {self.num_attempts[turn]}")
        self.messages.append({"role": "assistant", "content": words})
        return True

    async def _vanish(self, scope: anyio.CancelScope) -> None:
        await self.vanishes.wait()
        scope.cancel()

    def _body(self, num_words: int, *, streams: bool) -> tuple[bytes, dict[str, Any]]:
        common = {"model": "words", "stream": streams, "session_id": self.name}
        if not self.speaks_responses:
            more = {"messages": self.messages, "max_tokens": num_words}
            return b"/v1/chat/completions", {**common, **more}
        more = {"input": self.messages, "max_output_tokens": num_words}
        if self.previous is not None:
            del common["session_id"]  # it is that response's
            more |= {"input": self.messages[-1:], "previous_response_id": self.previous[0]}
        return b"/v1/responses", {**common, **more}

    async def _answer(self, gateway: SimGateway, path: bytes, body: dict[str, Any]) -> str | None:
        """Return the words of an answer, None for one that ended in an error."""
        data = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"host", b"gateway")]
        headers.append((b"content-length", str(len(data)).encode()))
        request = AsgiRequest("POST", "http", "gateway", 80, path, headers, data)
        exchange = AsgiExchange(request)
        life = gateway.num_lives
        gateway.serve(exchange)
        try:
            await exchange.wait_for_response()
            received = b"".join([chunk async for chunk in exchange.body()])
        finally:
            exchange.leave()
        if exchange.status == 404 and self._may_be_forgotten(gateway):
            self.log(f"{self.name}: {received!r}")
            self.previous = None
            return None
        if exchange.status != 200:
            if exchange.status not in RETRY_STATUSES:
                raise ViolationError(f"status {exchange.status}: {received!r}")
            return None
        if self.speaks_responses:
            return self._response(received, life, streams=body["stream"])
        if not body["stream"]:
            answer = json.loads(received)
            return str(answer["choices"][0]["message"]["content"])
        return self._streamed(received)

    def _may_be_forgotten(self, gateway: SimGateway) -> bool:
        """Return whether the gateway may not know the response that was told before."""
        return self.previous is not None and self.previous[1] in gateway.forgetful_lives

    def _response(self, received: bytes, life: int, *, streams: bool) -> str | None:
        if not streams:
            response = json.loads(received)
        else:
            parts = [event.partition(b"data: ") for event in received.split(b"\n\n")]
            events = [json.loads(data) for _, is_data, data in parts if is_data]
            last: dict[str, Any] = events[-1] if events else {"type": "nothing"}
            if last["type"] in ("error", "response.failed"):
                self.log(f"{self.name}: {last}")
                return None
            if last["type"] != "response.completed":
                raise ViolationError(f"a stream ended without an end: {received[-300:]!r}")
            deltas = "".join(e["delta"] for e in events if e["type"].endswith(".delta"))
            response = last["response"]
            if deltas != response["output"][0]["content"][0]["text"]:
                raise ViolationError(f"a stream said {deltas!r}, and {response} at its end")
        self.previous = str(response["id"]), life
        return str(response["output"][0]["content"][0]["text"])

    def _streamed(self, received: bytes) -> str | None:
        events = [e for e in received.split(b"\n\n") if e.startswith(b"data: ")]
        words, ended, finished = "", False, False
        for event in events:
            said = event.removeprefix(b"data: ")
            if said == b"[DONE]":
                ended = True
                continue
            if ended:
                raise ViolationError(f"something came after [DONE]: {said!r}")
            chunk = json.loads(said)
            if "error" in chunk:
                self.log(f"{self.name}: {chunk['error']['message']}")
                return None
            for choice in chunk["choices"]:
                if finished and choice["delta"].get("content"):
                    raise ViolationError(f"a token came after the last one: {said!r}")
                words += choice["delta"].get("content") or ""
                finished = finished or choice["finish_reason"] is not None
        if not (ended and finished):
            raise ViolationError(f"a stream ended without an end: {received[-300:]!r}")
        return words
