"""Kills processes under load, and checks that nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx2
import numpy as np

from agent_runtime.errors import JournalError
from agent_runtime.sdk.journal_places import opened_to_read
from agent_runtime.sdk.journaling.stored import stored_steps
from tests.kills.fleet import KilledProcess, gateways
from tests.kills.sessions import Session
from tests.redis_server import RedisServer

DONE_S = 240.0
"""After the last kill, for everything to come to its end."""


@dataclass(frozen=True)
class Terms:
    """What is run.

    Attributes:
        num_kills: In all.
        num_engine_kills: How many of them are of engines; None for as many as come.
        num_sessions: Of plain clients.
        num_gateways: With one, the journal is a file, with more a Redis.
        checks_words: Whether engines say ``w0 w1 ...``.
        pause_s: Of plain clients between two turns, at the most.
        seed: Of whom is killed when.
    """

    num_kills: int
    num_sessions: int = 8
    num_gateways: int = 1
    model: str = "words"
    checks_words: bool = True
    num_engine_kills: int | None = None
    pause_s: float = 0.4
    seed: int = 0


@dataclass
class Told:
    """What came of it."""

    killed: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    num_turns: int = 0
    num_rounds: int = 0
    num_tool_calls: int = 0
    problems: list[str] = field(default_factory=list)


class KillRun:
    """One run.

    Args:
        terms: What.
        engines: Not started yet.
        redis: For more than one gateway.
        folder: For journals and logs.
        progressed: Told of every kill.
    """

    def __init__(
        self,
        terms: Terms,
        engines: list[KilledProcess],
        redis: RedisServer | None,
        folder: Path,
        progressed: Callable[[str], None],
    ) -> None:
        self._terms, self._engines, self._redis, self._folder = terms, engines, redis, folder
        self._progressed = progressed
        self._rng = np.random.default_rng(terms.seed)
        journal = str(folder / "gateway.db") if redis is None else redis.url
        self._agents_journal = folder / "agents.db" if redis is None else redis.place("agents")
        self._gateways = gateways(terms.num_gateways, engines, journal, folder)
        self._program = KilledProcess("program", self._program_command, None, folder / "agents.log")
        self._recorded: dict[int, set[str]] = {}
        self._told = Told()
        self._next_kinds: list[list[KilledProcess | None]] = []

    async def run(self) -> Told:
        """Run it; all processes have ended when it returns."""
        everyone = [*self._engines, *self._gateways, self._program]
        try:
            await self._run()
        finally:
            for process in everyone:
                process.kill()
        self._check_the_end()
        return self._told

    async def _run(self) -> None:
        for group in (self._engines, self._gateways):
            for process in group:
                process.start()
            for process in group:
                await process.wait_until_ready()
        self._program.start()
        terms, stop = self._terms, anyio.Event()
        sessions = [
            Session(
                f"s{number}", terms.model, terms.checks_words, number % 2 == 1,
                [str(gateway.url) for gateway in self._gateways],
                np.random.default_rng([terms.seed, number]), terms.pause_s,
            )
            for number in range(terms.num_sessions)
        ]  # fmt: skip
        async with httpx2.AsyncClient(timeout=None) as http, anyio.create_task_group() as tasks:
            for session in sessions:
                tasks.start_soon(session.run, http, stop)
            for number in range(terms.num_kills):
                await anyio.sleep(float(self._rng.uniform(0.2, 1.2)))
                await self._kill_one(number)
            (self._folder / "stop").touch()
            stop.set()
            await self._come_to_an_end(sessions)
            tasks.cancel_scope.cancel()
        for session in sessions:
            self._told.problems += session.problems
            self._told.ends += session.ends
            self._told.num_turns += session.num_done

    async def _come_to_an_end(self, sessions: list[Session]) -> None:
        goals = {session.name: session.num_done + 1 for session in sessions}
        with anyio.move_on_after(DONE_S):
            while self._program.exit_code is None or any(
                session.num_done < goals[session.name] for session in sessions
            ):
                await anyio.sleep(0.1)
            if self._program.exit_code != 0:
                log = (self._folder / "agents.log").read_text()[-2000:]
                self._told.problems.append(f"the program ended: {self._program.exit_code}: {log}")
            return
        late = [s.name for s in sessions if s.num_done < goals[s.name]]
        if self._program.exit_code is None:
            late.append("the program")
        self._told.problems.append(f"not done {DONE_S:g} s after the last kill: {late}")

    async def _kill_one(self, number: int) -> None:
        victim = self._victim()
        kind = "redis" if victim is None else victim.kind
        self._progressed(f"kill {number + 1}: {kind}")
        self._told.killed[kind] += 1
        if victim is None:
            assert self._redis is not None
            self._redis.kill()
            await anyio.sleep(float(self._rng.uniform(0.0, 0.5)))
            self._redis.start()
            return
        if victim is self._program and victim.exit_code not in (None, 0):
            log = victim.log.read_text()[-2000:]
            self._told.problems.append(f"the program ended by itself: {log}")
        victim.kill()
        if victim is self._program:
            self._recorded[victim.num_lives] = self._finished_calls()
        victim.start()
        await victim.wait_until_ready()

    def _victim(self) -> KilledProcess | None:
        """Return who is killed next, all kinds by turns; None is the Redis."""
        if not self._next_kinds:
            kinds = self._kinds()
            self._next_kinds = [kinds[number] for number in self._rng.permutation(len(kinds))]
        kind = self._next_kinds.pop()
        return kind[int(self._rng.integers(len(kind)))]

    def _kinds(self) -> list[list[KilledProcess | None]]:
        most = self._terms.num_engine_kills
        kinds: list[list[KilledProcess | None]] = [[*self._gateways], [self._program]]
        if most is None or self._told.killed["engine"] < most:
            kinds.append([*self._engines])
        if self._redis is not None:
            kinds.append([None])
        return kinds

    def _program_command(self, life: int) -> list[str]:
        url = f"{self._gateways[life % len(self._gateways)].url}/v1"
        arguments = [
            url,
            str(self._agents_journal),
            str(self._folder),
            str(life),
            self._terms.model,
        ]
        return [sys.executable, "-m", "tests.kills.agent_program", *arguments]

    def _finished_calls(self) -> set[str]:
        """Return the tool calls whose results are in the journal, as the program names them."""
        finished: set[str] = set()
        with ExitStack() as stack:
            try:
                reader = stack.enter_context(opened_to_read(self._agents_journal))
            except JournalError as error:
                if any(text in str(error) for text in ("no such file", "empty", "there is none")):
                    return finished  # it was killed before it had begun one
                raise
            for summary in reader.summaries():
                for step in stored_steps(reader, summary.key):
                    finished |= {
                        f"{summary.session_id} {message['tool_call_id']} {step.begun.told}"
                        for message in step.recorded.messages
                        if message["role"] == "tool"
                    }
        return finished

    def _check_the_end(self) -> None:
        told = self._told
        done = [json.loads(line) for line in _lines(self._folder / "done")]
        told.num_tool_calls = len(done)
        told.num_rounds = len(
            {text for _, text in map(json.loads, _lines(self._folder / "rounds"))}
        )
        for life, finished in self._recorded.items():
            again = [call for in_life, call in done if in_life > life and call in finished]
            if again:
                told.problems.append(f"finished in life {life}, and made again: {again[:5]}")
        for name in ("agents.db", "gateway.db"):
            if (self._folder / name).exists():
                with sqlite3.connect(self._folder / name) as connection:
                    verdict = connection.execute("PRAGMA integrity_check").fetchall()
                if verdict != [("ok",)]:
                    told.problems.append(f"{name} is damaged: {verdict}")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
