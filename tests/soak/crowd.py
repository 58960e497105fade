"""Clients of every kind: who stays, who leaves, who errs, who is refused and comes back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import numpy as np

from tests.soak.engine_replies import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.soak.http_wire import Answer, BrokeOffError, ClientConnection

MAX_TRIES = 40
WORDS_SAID = 8
TEXT = " ".join(f"w{number}" for number in range(WORDS_SAID))
ENDS = {
    CHAT: b"data: [DONE]\n\n",
    COMPLETIONS: b"data: [DONE]\n\n",
    MESSAGES: b'"message_stop"}\n\n',
    RESPONSES: b"\n\n",
}
FAILURES = {
    CHAT: b'data: {"error"',
    COMPLETIONS: b'data: {"error"',
    MESSAGES: b"event: error",
    RESPONSES: b"event: response.failed",
}
Script = Callable[["Crowd", str], Awaitable[None]]


class Crowd:
    """Workers that play scripts until as many turns were asked for as are wanted.

    Args:
        port: Of the gateway.
        rng: Chooses what happens.

    Attributes:
        counts: What happened, by kind; ``turns`` are requests for turns.
        problems: Promises that were broken, the first few.
    """

    def __init__(self, port: int, rng: np.random.Generator) -> None:
        self._port, self.rng = port, rng
        self._idle: list[ClientConnection] = []
        self._num_sessions = 0
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    async def play_until(
        self, num_turns: int, num_workers: int, scripts: Sequence[tuple[Script, float]] = ()
    ) -> None:
        """Play scripts, by default all, until so many turns were asked for in all."""
        async with anyio.create_task_group() as tasks:
            for _ in range(num_workers):
                tasks.start_soon(self._work, num_turns, scripts or SCRIPTS)
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            await self._idle.pop().close()

    async def _work(self, num_turns: int, chosen: Sequence[tuple[Script, float]]) -> None:
        scripts, weights = zip(*chosen, strict=True)
        shares = np.array(weights) / sum(weights)
        while self.counts["turns"] < num_turns:
            script = scripts[int(self.rng.choice(len(scripts), p=shares))]
            self._num_sessions += 1
            await script(self, f"s{self._num_sessions}")

    def broken(self, what: str) -> None:
        """Note a promise that was broken."""
        self.counts["broken promises"] += 1
        if len(self.problems) < 10:
            self.problems.append(what)

    async def ask(self, method: str, path: str, body: dict[str, Any] | bytes = b"") -> Answer:
        """Ask for something; a connection that was closed meanwhile costs another try."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        while True:
            is_fresh = not self._idle
            connection = await self._connected() if is_fresh else self._idle.pop()
            try:
                answer = await connection.ask(method, path, data)
            except BrokeOffError as error:
                await connection.close()
                if is_fresh:
                    self.broken(f"{method} {path}: {error}")
                    return Answer(0, {}, b"")
                self.counts["connections closed while idle"] += 1
                continue
            if connection.is_reusable and self.rng.random() < 0.95:
                self._idle.append(connection)
            else:
                await connection.close()
            return answer

    async def turn(self, path: str, body: dict[str, Any]) -> Answer:
        """Ask for a turn until it is neither refused for now nor failed; check what comes."""
        answer = Answer(0, {}, b"")
        for _ in range(MAX_TRIES):
            self.counts["turns"] += 1
            answer = await self.ask("POST", path, body)
            if answer.status == 200:
                self.counts[f"{path} {'streams' if body.get('stream') else 'whole'}"] += 1
                self._check(path, body, answer.body)
                return answer
            self.counts[f"status {answer.status}"] += 1
            if answer.status == 429:
                await anyio.sleep(float(answer.headers[b"retry-after"]))
            elif answer.status not in {502, 503}:
                self.broken(f"{path}: {answer.status} {answer.body[:300]!r}")
                break
            else:
                await anyio.sleep(0.05)
        else:
            self.broken(f"{path}: refused {MAX_TRIES} times, the last time {answer.body[:300]!r}")
        return Answer(0, {}, b"")

    async def leave(self, path: str, body: dict[str, Any], num_bytes: int) -> None:
        """Ask for a turn and hang up after so many bytes."""
        self.counts["turns"] += 1
        self.counts["clients that left"] += 1
        connection = await self._connected()
        with suppress(BrokeOffError):  # refused
            await connection.ask_for_a_while(path, json.dumps(body).encode(), num_bytes)
        await connection.close()

    async def send_raw(self, data: bytes) -> None:
        """Send something, and hang up."""
        connection = await self._connected()
        await connection.send_raw(data)
        await connection.close()

    async def end(self, session_id: str) -> None:
        """Close a session, as most clients do not."""
        answer = await self.ask("DELETE", f"/v1/sessions/{session_id}")
        if answer.status not in {204, 404}:
            self.broken(f"DELETE of a session: {answer.status} {answer.body[:300]!r}")

    def chance(self, probability: float) -> bool:
        """Return whether something happens."""
        return bool(self.rng.random() < probability)

    async def _connected(self) -> ClientConnection:
        return await ClientConnection.connect(self._port)

    def _check(self, path: str, body: dict[str, Any], answer: bytes) -> None:
        if not body.get("stream"):
            if TEXT.encode() not in answer:
                self.broken(f"{path}: {answer[-300:]!r}")
        elif FAILURES[path] in answer:
            self.counts["streams that ended with an error"] += 1
            if path in {CHAT, COMPLETIONS} and not body.get("tools"):
                self.counts["of them, that could have gone on"] += 1
        elif not answer.endswith(ENDS[path]) or not _in_order(answer):
            self.broken(f"{path}, streamed: {answer[-300:]!r}")


def _in_order(events: bytes) -> bool:
    """Return whether a stream has each word once."""
    return all(events.count(b'"w%d%s"' % (n, b" " * (n < WORDS_SAID - 1))) == 1 for n in range(8))


def _says(crowd: Crowd, num_words: int) -> str:
    return " ".join(f"x{number}" for number in crowd.rng.integers(100_000, size=num_words))


def _chat(messages: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), "max_tokens": WORDS_SAID, **fields}


async def _conversation(
    crowd: Crowd, path: str, num_turns: int, keys: dict[str, Any]
) -> list[dict[str, Any]]:
    messages = [{"role": "user", "content": _says(crowd, 40)}]
    for _ in range(num_turns):
        stream = crowd.chance(0.7)
        if path == MESSAGES:
            keys = {**keys, "model": "words"}
        answer = await crowd.turn(path, _chat(messages, stream=stream, **keys))
        if answer.status != 200:
            break
        messages.append({"role": "assistant", "content": TEXT})
        messages.append({"role": "user", "content": _says(crowd, 12)})
    return messages


async def named_session(crowd: Crowd, name: str) -> None:
    """Some turns under an id."""
    path = CHAT if crowd.chance(0.7) else MESSAGES
    await _conversation(crowd, path, int(crowd.rng.integers(2, 7)), {"session_id": name})
    if crowd.chance(0.7):
        await crowd.end(name)


async def found_session(crowd: Crowd, name: str) -> None:
    """Some turns that are known by what they go on with."""
    await _conversation(crowd, CHAT, 3, {})


async def texts(crowd: Crowd, name: str) -> None:
    """Texts that have nothing to do with each other."""
    body = {"prompt": _says(crowd, 20), "max_tokens": WORDS_SAID, "stream": crowd.chance(0.5)}
    await crowd.turn(COMPLETIONS, body)


async def responses(crowd: Crowd, name: str) -> None:
    """A response and one that goes on with it."""
    previous: str | None = None
    kept: list[str] = []
    for _ in range(2):
        stored: dict[str, Any] = {} if previous is None else {"previous_response_id": previous}
        stream = crowd.chance(0.5)
        body = {"input": _says(crowd, 20), "max_output_tokens": WORDS_SAID, "stream": stream}
        answer = await crowd.turn(RESPONSES, {**body, **stored})
        if answer.status != 200:
            break
        previous = _id_in(answer.body) if stream else json.loads(answer.body)["id"]
        if previous is None:
            break
        kept.append(previous)
    for each in kept:
        await crowd.ask("DELETE", f"{RESPONSES}/{each}")


def _id_in(events: bytes) -> str | None:
    if b"response.completed" not in events:
        return None
    first = events.partition(b"data: ")[2].partition(b"\n")[0]
    return str(json.loads(first)["response"]["id"])


async def forked_session(crowd: Crowd, name: str) -> None:
    """A session that is opened, goes on twice, and is closed."""
    await crowd.ask("POST", "/v1/sessions", {"id": name})
    messages = await _conversation(crowd, CHAT, 1, {"session_id": name})
    fork = f"{name}-fork"
    made = await crowd.ask("POST", f"/v1/sessions/{name}/fork", {"id": fork})
    if made.status == 201:
        await crowd.turn(CHAT, _chat(messages, session_id=fork, stream=True))
    await crowd.ask("POST", f"/v1/sessions/{name}/pause")
    refused = await crowd.ask("POST", CHAT, _chat(messages, session_id=name))
    crowd.counts["turns"] += 1
    if refused.status not in {409, 429}:
        crowd.broken(f"a turn of a paused session: {refused.status} {refused.body[:300]!r}")
    for each in (name, fork):
        await crowd.end(each)


async def torn_session(crowd: Crowd, name: str) -> None:
    """A session that is closed while its turn is under way."""
    body = _chat([{"role": "user", "content": _says(crowd, 40)}], session_id=name)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crowd.turn, CHAT, {**body, "stream": crowd.chance(0.5)})
        await anyio.sleep(float(crowd.rng.random()) * 0.02)
        await crowd.end(name)


async def leaver(crowd: Crowd, name: str) -> None:
    """A client that goes away: before the answer, or within it."""
    path = (CHAT, MESSAGES)[int(crowd.rng.integers(2))]
    body = _chat([{"role": "user", "content": _says(crowd, 40)}], session_id=name, model="words")
    body |= {"stream": True, "max_tokens": 200}
    await crowd.leave(path, body, int(crowd.rng.choice([0, 1, 2000])))
    if crowd.chance(0.5):
        await crowd.end(name)


async def wrong_request(crowd: Crowd, name: str) -> None:
    """What no program should send."""
    turns: list[dict[str, Any] | bytes] = [
        b"{",
        b'{"messages": "none"}',
        _chat([{"role": "user", "content": "hi"}], session_id=7),
        _chat([{"role": "user", "content": "hi"}], session_id=name, model="another"),
        _chat([{"role": "user", "content": _says(crowd, 4000)}], session_id=name),
    ]
    body = turns[int(crowd.rng.integers(len(turns)))]
    crowd.counts["turns"] += 1
    answer = await crowd.ask("POST", CHAT, body)
    if answer.status not in {400, 404, 429}:
        crowd.broken(f"{body!r:.200}: {answer.status} {answer.body[:300]!r}")
    halves = (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99\r\n\r\n{", b"NONSENSE\r\n")
    await crowd.send_raw(halves[int(crowd.rng.integers(2))])


SCRIPTS: tuple[tuple[Script, float], ...] = (
    (named_session, 5.0),
    (found_session, 2.0),
    (texts, 3.0),
    (responses, 2.0),
    (forked_session, 1.0),
    (leaver, 2.0),
    (torn_session, 1.0),
    (wrong_request, 1.0),
)
