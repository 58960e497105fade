"""Whose sessions in Redis are: leases, taking over, and programs that come back too late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.errors import JournalError
from agent_runtime.sdk import Agent, Runtime
from agent_runtime.sdk.journaling.store import Opening, Refused
from agent_runtime.sdk.redis_journal.owners import Owner, Process
from tests.conftest import PREFIXES
from tests.journal_places import live, says, states, telling
from tests.redis_journals import LONG_S, Program, program
from tests.redis_server import RedisServer
from tests.test_sdk import ScriptedServer

ROOT = Path(__file__).parent.parent
ELSEWHERE = Process(1, "1", "another machine")


def owner(process: Process, lease_s: float = 10.0, renewed_ms: int = 0) -> Owner:
    return Owner("1", process, "host", "fleet.py", 0.0, lease_s, renewed_ms)


@given(st.floats(1, 3600), st.integers(0, 2**50), st.integers(0, 10**8))
def test_a_lease_lasts_as_long_as_it_says_after_it_was_renewed(
    lease_s: float, renewed_ms: int, passed_ms: int
) -> None:
    away = owner(ELSEWHERE, lease_s, renewed_ms)
    assert away.is_over(renewed_ms + passed_ms) == (passed_ms / 1000 >= lease_s)
    assert 0 <= away.left_s(renewed_ms + passed_ms) <= lease_s


def test_a_process_that_is_gone_is_known_to_be_only_where_it_was() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        own = Process.own()
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        process = Process(child.pid, started, own.machine)
        assert not process.is_known_gone()
        assert not owner(process).is_over(9999)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.is_known_gone(), "though its parent has not asked yet"
    assert owner(process).is_over(0)
    assert not Process(child.pid, started, "another machine").is_known_gone()
    assert not Process(child.pid, started, "").is_known_gone()
    assert Process(own.number, "before", own.machine).is_known_gone(), "its number came again"


def test_a_session_of_another_program_is_refused_by_name(shared_redis: RedisServer) -> None:
    prefix = f"test{next(PREFIXES)}"
    with program(shared_redis, prefix) as first:
        first.opened("s")
        url = shared_redis.place(prefix)
        who = rf"session s .*in use by process {os.getpid()} on .* since 1970.*lease lasts another"
        with pytest.raises(JournalError, match=who):
            live(url, ScriptedServer(), telling("1"))
        assert live(url, says("one"), telling("1", session_id="other")) == ["one"]
        first.opened("t")
    assert states(url) == [
        ("s", "waiting", []),
        ("other", "closed", ["ended"]),
        ("t", "waiting", []),
    ]


def test_one_that_lost_its_lease_never_writes_again(shared_redis: RedisServer) -> None:
    prefix = f"test{next(PREFIXES)}"
    with program(shared_redis, prefix) as first, program(shared_redis, prefix) as second:
        key = first.opened("s").key
        first.begun(key)
        first.add(key, "first")
        other = first.opened("other").key
        assert isinstance(second.opened("s"), Refused)
        first.let_time_pass(LONG_S - 60)
        assert isinstance(second.opened("s"), Refused)
        first.let_time_pass(60)
        opening = second.opened("s")
        assert (opening.key, [step.number for step in opening.steps]) == (key, [0])
        for late in (
            lambda: first.add(key, "late"),
            lambda: first.add(other, "late"),
            lambda: first.opened("new"),
        ):
            with pytest.raises(JournalError, match="has lost its lease: it was not heard of"):
                late()
        assert not first.lease.renewed()
        second.add(key, "second")
        assert second.texts(key) == ["first", "second"]
        assert [s.session_id for s in second.store.summaries()] == ["s", "other"]


def test_one_that_is_heard_of_again_in_time_keeps_what_it_has(shared_redis: RedisServer) -> None:
    prefix = f"test{next(PREFIXES)}"
    with program(shared_redis, prefix) as first, program(shared_redis, prefix) as second:
        key = first.opened("s").key
        first.let_time_pass(LONG_S)
        assert first.lease.renewed()
        assert isinstance(second.opened("s"), Refused)
        first.let_time_pass(LONG_S)
        first.begun(key)  # writing renews it, too
        assert isinstance(second.opened("s"), Refused)
        first.let_time_pass(LONG_S)
        (holder, _) = second.store.owners()
        first.begun(key)
        assert not second.lease.take_away(holder), "it was heard of since"


@contextmanager
def another_program(url: str) -> Iterator[subprocess.Popen[str]]:
    """Have a program on its own that has told session 's' something, and waits for a line."""
    command = [sys.executable, "-m", "tests.redis_program", url]
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **streams) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def test_another_program_goes_on_at_once_with_the_sessions_of_one_that_was_killed(
    redis_url: str,
) -> None:
    async def running(runtime: Runtime) -> Any:
        async with runtime.session(Agent("a"), session_id="mine") as session:
            first = (await session.run("hello")).text
            with another_program(redis_url) as child:
                with pytest.raises(JournalError, match=rf"in use by process {child.pid} on"):
                    await telling("1")(runtime)
                child.send_signal(signal.SIGKILL)
                child.wait()
            return [first, *await telling("1", "2")(runtime), (await session.run("bye")).text]

    server = says("hi", "two", "farewell")
    assert live(redis_url, server, running) == ["hi", "one", "two", "farewell"]


def test_a_program_that_stood_still_ends_when_it_comes_back(
    shared_redis: RedisServer, redis_url: str
) -> None:
    url = f"{redis_url}&lease_s={LONG_S}"
    with another_program(url) as child:
        child.send_signal(signal.SIGSTOP)
        prefix = redis_url.rpartition("=")[2]
        (place,) = shared_redis.client.keys(f"{{{prefix}}}:owner:*")
        shared_redis.client.hset(place, "renewed_ms", "0")
        assert live(redis_url, says("two"), telling("1", "2")) == ["one", "two"]
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate("go on\n")
    assert "JournalError" in out
    assert "lost its lease" in out
    assert states(redis_url) == [("s", "closed", ["ended", "ended"])]


SESSIONS = ("one", "two", "three")
ACTIONS = ("open", "add", "stand still")
STEPS = st.tuples(st.integers(0, 2), st.sampled_from(ACTIONS), st.sampled_from(SESSIONS))


class Model:
    """What is to be expected of three programs that share a journal.

    Attributes:
        holders: Whose sessions are.
        still: Programs that have stood still for longer than their leases.
        fenced: Those of them that another one has succeeded.
        keys: Of sessions.
        said: In sessions.
    """

    def __init__(self, programs: list[Program]) -> None:
        self.programs = programs
        self.holders: dict[str, int] = {}
        self.still: set[int] = set()
        self.fenced: set[int] = set()
        self.keys: dict[str, int] = {}
        self.said: dict[str, list[str]] = {}

    def stand_still(self, number: int) -> None:
        if number not in self.fenced:
            self.programs[number].let_time_pass(LONG_S)
            self.still.add(number)

    def open(self, number: int, session_id: str) -> None:
        opened = self.programs[number].opened(session_id)
        self.still.discard(number)
        holder = self.holders.get(session_id)
        if holder in self.still:
            self.still.discard(holder)
            self.fenced.add(holder)
            self.holders = {name: had for name, had in self.holders.items() if had != holder}
        elif holder not in (None, number):
            assert isinstance(opened, Refused)
            return
        assert isinstance(opened, Opening)
        if session_id not in self.keys:
            self.programs[number].begun(opened.key)
        assert self.keys.setdefault(session_id, opened.key) == opened.key
        self.holders[session_id] = number

    def add(self, number: int, session_id: str, text: str) -> None:
        if self.holders.get(session_id) == number:
            self.still.discard(number)
            self.programs[number].add(self.keys[session_id], text)
            self.said.setdefault(session_id, []).append(text)


@given(steps=st.lists(STEPS, max_size=40))
@settings(max_examples=60)
def test_a_session_is_one_program_s_at_a_time_whoever_stands_still(
    shared_redis: RedisServer, steps: list[tuple[int, str, str]]
) -> None:
    prefix = f"test{next(PREFIXES)}"
    with ExitStack() as stack:
        programs = [stack.enter_context(program(shared_redis, prefix)) for _ in range(3)]
        model = Model(programs)
        for at, (number, action, session_id) in enumerate(steps):
            if action == "stand still":
                model.stand_still(number)
            elif number in model.fenced:
                with pytest.raises(JournalError, match="lost its lease"):
                    programs[number].add(1, "late")
            elif action == "open":
                model.open(number, session_id)
            else:
                model.add(number, session_id, str(at))
        for session_id, key in model.keys.items():
            assert programs[0].texts(key) == model.said.get(session_id, [])
