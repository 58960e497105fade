"""What a journal costs: turns a second with and without one, beside each other.

    python -m benchmarks.sdk.journal_cost [--sessions 1000] [--turns 10] [--folder .] [--redis]

Sessions side by side, each a run of tool calls and model calls that a server in the process
answers after a while, in real time. Every model message and every tool result is on disk before its
session goes on, so the ratio is one of a disk: name a folder on the one you mean. Each commit is an
fsync. With ``--redis`` the journal is in a redis-server that is started for it, on the same machine
and disk, with appendfsync always.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import httpx2
from typing_extensions import override

from agent_runtime.sdk import Agent, Runtime, RuntimeOptions, tool
from agent_runtime.sdk.journal import Journal
from agent_runtime.sdk.journal_places import opened_journal, opened_to_read
from tests.redis_server import RedisServer, running_redis

ROUNDS = 5
KB_OF_TEXT = 2


class SlowServer(httpx2.AsyncBaseTransport):
    """Answers after so many seconds; wants a tool until a conversation has so many turns."""

    def __init__(self, num_turns: int, answer_s: float) -> None:
        self._num_turns = num_turns
        self._answer_s = answer_s

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        await anyio.sleep(self._answer_s)
        number = body.count(b'"role":"assistant"') + 1
        message: dict[str, Any] = {"role": "assistant", "content": "words " * (KB_OF_TEXT * 170)}
        if number < self._num_turns:
            function = {"name": "read_lines", "arguments": '{"path": "a.py"}'}
            call = {"id": f"call-{number}", "type": "function", "function": function}
            message["tool_calls"] = [call]
        usage = {"prompt_tokens": 1000, "completion_tokens": 10}
        answer = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        return httpx2.Response(200, json=answer)


@tool
async def read_lines(path: str) -> str:
    """Read lines of a file."""
    return f"{path}: " + "line " * (KB_OF_TEXT * 200)


@dataclass(frozen=True, slots=True)
class Lived:
    """Turns a second of wall time and CPU seconds a turn, and how many commits there were."""

    turns_per_s: float
    cpu_s_per_turn: float
    num_commits: int


async def live(args: argparse.Namespace, journal: Journal | None) -> tuple[float, float]:
    """Have all sessions live; return wall and CPU seconds."""
    agent = Agent("reader", tools=[read_lines])
    server = SlowServer(args.turns, args.answer_s)
    options = RuntimeOptions(journal=journal)
    async with Runtime.connect(
        "http://server/v1", model="m", transport=server, options=options
    ) as runtime:

        async def one(number: int) -> None:
            async with runtime.session(agent, session_id=f"s{number}") as session:
                await session.run("begin")

        began_s, cpu_s = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as tasks:
            for number in range(args.sessions):
                tasks.start_soon(one, number)
        return time.perf_counter() - began_s, time.process_time() - cpu_s


@contextmanager
def commits_to_file() -> Iterator[list[str]]:
    """Note every commit of SQLite's."""
    commits: list[str] = []
    connect = sqlite3.connect

    def counting(*arguments: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 - sqlite3's
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(
            lambda text: commits.append(text) if text == "COMMIT" else None
        )
        return connection

    sqlite3.connect = counting  # type: ignore[assignment]
    try:
        yield commits
    finally:
        sqlite3.connect = connect


async def with_journal(args: argparse.Namespace, folder: Path, server: RedisServer | None) -> Lived:
    """Live with a journal, and see that all is in it."""
    place = str(folder / "fleet.db") if server is None else server.place(folder.name)
    before = 0 if server is None else num_batches(server)
    with commits_to_file() as commits:
        async with opened_journal(place) as journal:
            wall_s, cpu_s = await live(args, journal)
    with opened_to_read(place) as reader:
        num_turns = sum(summary.num_turns for summary in reader.summaries())
    if num_turns != args.sessions * args.turns:
        raise SystemExit(f"the journal has {num_turns} turns")
    num_commits = len(commits) if server is None else num_batches(server) - before
    return Lived(num_turns / wall_s, cpu_s / num_turns, num_commits)


def num_batches(server: RedisServer) -> int:
    """Return how many batches a server has written."""
    told: dict[str, Any] = server.client.info("commandstats")
    return int(told.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def without(args: argparse.Namespace) -> Lived:
    """Live without one."""
    wall_s, cpu_s = await live(args, None)
    num_turns = args.sessions * args.turns
    return Lived(num_turns / wall_s, cpu_s / num_turns, 0)


async def measure(args: argparse.Namespace) -> None:
    """Print the report."""
    durable: list[Lived] = []
    forgetful: list[Lived] = []
    with running_redis(parent=Path(args.folder)) if args.redis else nullcontext() as server:
        for _ in range(ROUNDS):
            forgetful.append(await without(args))
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                durable.append(await with_journal(args, Path(folder), server))
    ratios = [d.turns_per_s / f.turns_per_s for d, f in zip(durable, forgetful, strict=True)]
    more_us = median(
        1e6 * (d.cpu_s_per_turn - f.cpu_s_per_turn) for d, f in zip(durable, forgetful, strict=True)
    )
    written = args.sessions * (2 * args.turns - 1)
    print(
        f"{args.sessions:,} sessions of {args.turns} turns, answers after {args.answer_s} s: "
        f"{_median(forgetful):,.0f} turns/s without a journal, {_median(durable):,.0f} with one: "
        f"{median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f}); {more_us:.0f} us of CPU "
        f"more a turn; {written:,} messages made safe by {durable[-1].num_commits:,} commits"
    )


def _median(lived: Sequence[Lived]) -> float:
    return median(one.turns_per_s for one in lived)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--answer-s", type=float, default=1.0, help="a model call takes so long")
    parser.add_argument("--folder", default=".", help="on the disk that is meant")
    parser.add_argument("--redis", action="store_true", help="in Redis instead of a file")
    anyio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
