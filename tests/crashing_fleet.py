"""A fleet of agents whose process is killed again and again, until its program has come to its end.

    python -m tests.crashing_fleet FIRST_SEED NUM_SEEDS FOLDER {sqlite,redis}

Every life is a fork of this process that runs the program in virtual time, and that SIGKILLs itself
at an event the seed chooses: the n-th of the statements of SQLite (those of one transaction, too),
or of what is sent to Redis and waited for from it, of model calls begun and answered, and of tool
calls begun and done. In Redis' lives redis-server is killed as well, at another event, and is
started again beside the life that goes on. After every life the journal is read, and what it has
must not happen again. Prints what it found as JSON; exits with 1 at the first thing that is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import redis
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_runtime.errors import JournalError, ModelCallError, RunCancelledError
from agent_runtime.sdk import Agent, Runtime, RuntimeOptions, Tool, ToolContext, agent_tool
from agent_runtime.sdk.journal_places import opened_to_read
from agent_runtime.sdk.journaling.stored import StoredStep, in_order, stored_steps
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from tests.redis_server import RedisServer, running_redis

MAX_CRASHES = 4
NEVER = 10**9
NOT_YET = os.WEXITED | os.WNOHANG | os.WNOWAIT
CANCELLED_BY_ANOTHER = "lead.4"
"""A fork that later lives go on with, until the one whose failure is recorded fails again."""


class Verdict(BaseModel):
    good: bool


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Life:
    """One process: counts events, dies at one of them, and writes down what it does."""

    def __init__(self, folder: Path, place: str, dies_at: int) -> None:
        self.folder = folder
        self.place = place
        self.dies_at = dies_at
        self.kills_at = NEVER
        self.kills: RedisServer | None = None
        self.num_events = 0
        self._is_in_transaction = False

    def event(self, what: str) -> None:
        self.num_events += 1
        if self.num_events == self.kills_at and self.kills is not None:
            self.note("died", f"redis-server {what}")
            self.kills.kill_from_another_process()
        if self.num_events == self.dies_at:
            self.note("died", what)
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(self, text: str) -> None:
        """Take note of a statement of SQLite's that is about to be carried out."""
        self.event("in a transaction" if self._is_in_transaction else "before a transaction")
        if text.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
            self._is_in_transaction = text.startswith("BEGIN")

    def note(self, file: str, *what: Any) -> None:
        # Straight to the system: what is written is there, though the process is killed next.
        with (self.folder / file).open("ab", buffering=0) as out:
            out.write(json.dumps(what).encode() + b"\n")

    async def chat(self, request: Request) -> Response:
        """Answer as the conversation wants: always the same to the same one."""
        body = await request.json()
        messages = body["messages"]
        session_id = request.headers["x-session-id"]
        key = digest(messages)
        self.note("asked", session_id, key)
        self.event("a model call begun")
        number = int(key, 16)
        await anyio.sleep(0.01 + number % 97 / 100)
        self.event("a model call answered")
        last_user = next(m["content"] for m in reversed(messages) if m["role"] == "user")
        if "wait for ever" in last_user:
            await anyio.sleep_forever()
        if "refuse" in last_user:
            return JSONResponse({"error": {"message": "I don't want to"}}, 400)
        message = answer(body, messages, last_user, key)
        usage = {"prompt_tokens": len(messages), "completion_tokens": number % 50}
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        return JSONResponse({"choices": [choice], "usage": usage})

    async def work(self, context: ToolContext, item: str) -> str:
        """Do something that must not be done twice."""
        self.event("a tool call begun")
        await anyio.sleep(int(digest(item), 16) % 7 / 10)
        self.note("done", context.session.session_id, context.call_id, item)
        self.event("a tool call done")
        return f"worked on {item}"

    async def criticise(self, context: ToolContext, item: str) -> str:
        """Ask a critic, who has the same name every time."""
        name = f"critic of {context.session.session_id}"
        async with context.session.child(Agent("critic"), name=name) as critic:
            return (await critic.run(f"what of {item}?")).text


def answer(
    body: dict[str, Any], messages: list[dict[str, Any]], last_user: str, key: str
) -> dict[str, Any]:
    if "response_format" in body:
        return {"content": '{"good": true}' if "Answer again" in last_user else "no verdict"}
    tools = [tool["function"]["name"] for tool in body.get("tools", ())]
    num_results = 0
    for message in reversed(messages):
        if message["role"] == "user":
            break
        num_results += message["role"] == "tool"
    if not tools or num_results >= 3 or body.get("tool_choice") == "none":
        return {"content": f"answer {key}"}
    number = int(key, 16)
    wanted = [tools[(number >> shift) % len(tools)] for shift in (8, 16)][: 1 + number % 2]
    wanted = ["criticise", *wanted] if "criticise" in tools and not num_results else wanted
    wanted = [name for at, name in enumerate(wanted) if name != "criticise" or not at]
    calls = [
        {
            "id": f"c{at}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": json.dumps({"task" if name == "helper" else "item": f"{key}-{at}"}),
            },
        }
        for at, name in enumerate(wanted)
    ]
    return {"content": None, "tool_calls": calls}


async def program(runtime: Runtime, life: Life) -> dict[str, Any]:
    work, criticise = Tool(life.work), Tool(life.criticise)
    helper = agent_tool(Agent("helper", "you help", [work]), "Asks a helper.", name="helper")
    answers: dict[str, Any] = {}

    def keep(name: str, result: Any) -> None:
        answers[name] = [result.text, list(result.messages), vars_of(result.usage)]

    async def code(number: int) -> None:
        coder = Agent("coder", "you code", [work])
        async with runtime.session(coder, session_id=f"coder-{number}") as session:
            keep(f"coder {number} first", await session.run(f"begin with {number}"))
            mark = session.mark()
            keep(f"coder {number} wrong way", await session.run("a wrong way"))
            session.rewind(mark)
            answers[f"coder {number} summary"] = await session.compact(keep_last=2)
            keep(f"coder {number} last", await session.run("end"))

    async def lead() -> None:
        agent = Agent("lead", "you lead", [work, helper, criticise])
        async with runtime.session(agent, session_id="lead") as session:
            keep("lead first", await session.run("begin"))
            try:
                await session.run("refuse this")
            except ModelCallError as error:
                answers["refused"] = [str(error), error.status]
            try:
                with anyio.move_on_after(20):
                    await session.run("wait for ever")
            except RunCancelledError:
                pass
            results = await session.fork_map(["one way", "another", "a third"], at_once=2)
            session.adopt(min(results, key=lambda result: result.text))
            try:
                await session.fork_map(["a fourth", "refuse that"])
            except ModelCallError as error:
                answers["fork refused"] = str(error)
            verdict = await session.run("judge", output=Verdict, second_tries=1)
            keep("verdict", verdict)
            keep("lead last", await session.run("so?"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lead)
        for number in range(2):
            tasks.start_soon(code, number)
    return answers


def vars_of(usage: Any) -> list[int]:
    return [usage.prompt_tokens, usage.cached_tokens, usage.output_tokens]


def count_statements(life: Life) -> None:
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.set_trace_callback(life.statement)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]


def count_packets(life: Life) -> None:
    send = redis.connection.AbstractConnection.send_packed_command
    read = redis.connection.AbstractConnection.read_response

    def sending(*args: Any, **kwargs: Any) -> Any:
        life.event("before Redis was told")
        return send(*args, **kwargs)

    def reading(*args: Any, **kwargs: Any) -> Any:
        life.event("before Redis answered")
        return read(*args, **kwargs)

    redis.connection.AbstractConnection.send_packed_command = sending  # type: ignore[method-assign]
    redis.connection.AbstractConnection.read_response = reading  # type: ignore[method-assign]


def live(life: Life) -> None:
    (count_packets if life.place.startswith("unix:") else count_statements)(life)
    app = Starlette(routes=[Route("/v1/chat/completions", life.chat, methods=["POST"])])

    async def main() -> dict[str, Any]:
        options = RuntimeOptions(journal=life.place)
        async with Runtime.connect(
            "http://server/v1", model="m", options=options, transport=StreamingAsgiTransport(app)
        ) as runtime:
            return await program(runtime, life)

    answers = anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})
    life.note("answers", dict(sorted(answers.items())))
    life.note("events", life.num_events)


def forked(act: Callable[[], None], server: RedisServer | None = None) -> int:
    """Do something in a process of its own; return how that ended. Keep a server up meanwhile."""
    if (process := os.fork()) == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:  # noqa: BLE001 - for people, before the process is no more
            traceback.print_exc()
        finally:
            os._exit(code)
    if server is not None:
        server.keep_up_while(lambda: os.waitid(os.P_PID, process, NOT_YET) is None)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def notes(folder: Path, file: str) -> list[Any]:
    path = folder / file
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def recorded(place: str) -> tuple[set[Any], set[Any], dict[str, Any]]:
    """Return the model calls and the tool calls that a journal has, and all conversations."""
    asked: set[Any] = set()
    done: set[Any] = set()
    conversations: dict[str, Any] = {}
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(opened_to_read(place))
        except JournalError as error:
            if any(text in str(error) for text in ("no such file", "it is empty", "there is none")):
                return asked, done, conversations
            raise
        for summary in reader.summaries():
            steps = stored_steps(reader, summary.key)
            for step in steps:
                record_step(summary.session_id, step, asked, done)
            name = f"{summary.session_id} {summary.place}"
            assert name not in conversations
            if CANCELLED_BY_ANOTHER in name:
                continue
            conversations[name] = [
                summary.state.value,
                [
                    (step.begun.kind.value, step.state.value, step.error and step.error.name)
                    for step in steps
                ],
                [step.after for step in steps],
            ]
    return asked, done, conversations


def record_step(session_id: str, step: StoredStep, asked: set[Any], done: set[Any]) -> None:
    so_far = [*step.before, {"role": "user", "content": step.begun.told}]
    calls: dict[str, str] = {}
    for message in in_order(step.recorded.messages):
        if message["role"] == "assistant":
            asked.add((session_id, digest(so_far)))
            calls = {
                call["id"]: next(iter(json.loads(call["function"]["arguments"]).values()))
                for call in message.get("tool_calls") or ()
            }
        elif message["role"] == "tool":
            call_id = message["tool_call_id"]
            done.add((session_id, call_id, calls[call_id]))
        so_far.append(message)


def place_of(folder: Path, server: RedisServer | None) -> str:
    return str(folder / "fleet.db") if server is None else server.place(folder.name)


def reference(folder: Path, server: RedisServer | None) -> dict[str, Any]:
    folder.mkdir()
    place = place_of(folder, server)
    assert forked(lambda: live(Life(folder, place, NEVER))) == 0
    asked = notes(folder, "asked")
    assert len({tuple(key) for key in asked}) == len(asked), "every model call is another one"
    return {
        "answers": notes(folder, "answers"),
        "conversations": recorded(place)[2],
        "num_events": notes(folder, "events")[0][0],
        "num_asked": len(asked),
        "num_done": len(notes(folder, "done")),
    }


def survive(
    folder: Path, seed: int, expected: dict[str, Any], server: RedisServer | None
) -> list[str]:
    """Live until the program is done; return where it was killed."""
    folder.mkdir()
    place = place_of(folder, server)
    draws = np.random.default_rng(seed)
    num_crashes = 0
    exit_code = None
    while exit_code != 0:
        # Later lives have less to do, as they find much done.
        latest = max(2, expected["num_events"] // (1 + num_crashes))
        dies_at = int(draws.integers(1, latest)) if num_crashes < MAX_CRASHES else 0
        asked_before, done_before, _ = recorded(place)
        num_asked, num_done = len(notes(folder, "asked")), len(notes(folder, "done"))
        life = Life(folder, place, dies_at or NEVER)
        if server is not None:
            life.kills, life.kills_at = server, int(draws.integers(1, latest))
        exit_code = forked(lambda life=life: live(life), server)  # type: ignore[misc]
        assert exit_code in (0, -signal.SIGKILL), f"seed {seed}: a life ended with {exit_code}"
        num_crashes += exit_code != 0
        asked = {tuple(key) for key in notes(folder, "asked")[num_asked:]}
        done = {tuple(key) for key in notes(folder, "done")[num_done:]}
        assert not asked & asked_before, f"seed {seed}: asked again: {asked & asked_before}"
        assert not done & done_before, f"seed {seed}: done again: {done & done_before}"
    assert notes(folder, "answers") == expected["answers"], f"seed {seed}: other answers"
    conversations = recorded(place)[2]
    assert conversations.keys() == expected["conversations"].keys(), f"seed {seed}: other sessions"
    for name, conversation in expected["conversations"].items():
        assert conversations[name] == conversation, f"seed {seed}: {name} differs"
    return [what for (what,) in notes(folder, "died")]


def main() -> None:
    first, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with running_redis() if sys.argv[4] == "redis" else nullcontext() as server:
        expected = reference(folder / "reference", server)
        died: Counter[str] = Counter()
        for seed in range(first, first + count):
            died.update(survive(folder / str(seed), seed, expected, server))
    figures = {name: value for name, value in expected.items() if name.startswith("num_")}
    json.dump({**figures, "num_seeds": count, "died": died}, sys.stdout)


if __name__ == "__main__":
    main()
