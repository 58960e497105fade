"""The journal of sessions: what it gives back, what it refuses, what goes wrong with its file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from agent_runtime.errors import (
    AgentError,
    JournalError,
    ModelCallError,
    RunCancelledError,
    TurnLimitError,
)
from agent_runtime.sdk import Agent, Runtime, agent_tool, tool
from agent_runtime.sdk.journal import SessionOpened, StepBegun, StepKind
from agent_runtime.sdk.journal_places import opened_to_read
from agent_runtime.sdk.journaling.stored import stored_steps
from agent_runtime.sdk.sqlite_journal import SqliteJournal
from tests.journal_places import in_virtual_time, live, telling
from tests.test_sdk import ScriptedServer, add, calling, look_up

REFUSED = JSONResponse({"error": {"message": "no"}}, 400)


def says(*texts: str) -> ScriptedServer:
    return ScriptedServer(*[{"content": text} for text in texts])


def states(journal: Path) -> list[tuple[str, str, list[str]]]:
    with opened_to_read(journal) as reader:
        return [
            (
                summary.session_id,
                summary.state.value,
                [step.state.value for step in stored_steps(reader, summary.key)],
            )
            for summary in reader.summaries()
        ]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"
    assert live(journal, says("one", "two"), telling("1", "2")) == ["one", "two"]
    server = says("three")
    assert live(journal, server, telling("1", "2", "3")) == ["one", "two", "three"]
    assert [m["content"] for m in server.asked[0]["messages"]] == ["1", "one", "2", "two", "3"]
    assert states(journal) == [("s", "closed", ["ended"] * 3)]


def test_a_failed_last_step_is_tried_again_and_an_earlier_one_fails_as_it_did(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "j.db"
    with pytest.raises(ModelCallError, match="no"):
        live(journal, ScriptedServer({"content": "one"}, REFUSED), telling("1", "2"))
    assert states(journal) == [("s", "failed", ["ended", "failed"])]

    async def tries_twice(runtime: Runtime) -> Any:
        async with runtime.session(Agent("a"), session_id="s") as session:
            await session.run("1")
            with pytest.raises(ModelCallError) as caught:
                await session.run("2")
            return caught.value.status, (await session.run("3")).text

    again = ScriptedServer(REFUSED, {"content": "three"})
    assert live(journal, again, tries_twice) == (400, "three")
    assert live(journal, ScriptedServer(), tries_twice) == (400, "three")
    assert states(journal) == [("s", "closed", ["ended", "failed", "ended"])]


def test_a_run_goes_on_from_its_last_finished_tool_call(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"
    num_called = 0

    @tool
    async def count() -> int:
        nonlocal num_called
        num_called += 1
        return num_called

    agent = Agent("a", tools=[count, add], max_turns=2)
    server = ScriptedServer(
        calling(("count", "{}"), ("add", '{"a":1,"b":2}')), calling(("count", "{}"))
    )
    with pytest.raises(TurnLimitError):
        live(journal, server, telling("go", agent=agent))
    assert num_called == 2
    more = says("done")
    patient = Agent("a", tools=[count, add], max_turns=3)
    assert live(journal, more, telling("go", agent=patient)) == ["done"]
    assert num_called == 2
    assert [m["content"] for m in more.asked[0]["messages"]] == ["go", None, "1", "3.0", None, "2"]


def test_a_cancelled_run_that_the_program_went_on_from_fails_again(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"

    @tool
    async def wait() -> None:
        await anyio.sleep_forever()

    async def program(runtime: Runtime) -> Any:
        agent = Agent("a", tools=[wait])
        async with runtime.session(agent, session_id="s") as session:
            cancelled = False
            try:
                with anyio.move_on_after(5):
                    await session.run("1")
            except RunCancelledError as error:
                cancelled = "step 1 was cancelled" in str(error)
            return cancelled, (await session.run("2")).text

    server = ScriptedServer(calling(("wait", "{}")), {"content": "two"})
    assert live(journal, server, program) == (False, "two")
    assert live(journal, ScriptedServer(), program) == (True, "two")
    assert states(journal) == [("s", "closed", ["cancelled", "ended"])]


def test_a_cancelled_run_that_ended_the_program_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"

    async def program(runtime: Runtime) -> Any:
        with anyio.fail_after(1):
            return await telling("1", agent=Agent("a", tools=[look_up]))(runtime)

    with pytest.raises(TimeoutError):
        live(journal, ScriptedServer(calling(("look_up", '{"word":"x"}'))), program)
    assert states(journal) == [("s", "running", ["running"])]
    server = says("one")
    assert live(journal, server, telling("1", agent=Agent("a", tools=[look_up]))) == ["one"]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("program", "says_"),
    [
        (telling("other"), r"s, step 1: .*agent is told: expected 1, got other; let it be"),
        (telling("1"), r"s, step 2: .*end: expected '2', got no further step"),
        (telling("1", "2", agent=Agent("b")), "session s: .*agent: expected a, got b"),
        (telling("1", "2", agent=Agent("a", "be kind")), "first messages"),
    ],
)
def test_another_program_is_told_where_it_is_another_one(
    tmp_path: Path, program: Any, says_: str
) -> None:
    journal = tmp_path / "j.db"
    live(journal, says("one", "two"), telling("1", "2"))
    with pytest.raises(JournalError, match=says_):
        live(journal, ScriptedServer(), program)
    assert live(journal, ScriptedServer(), telling("1", "2")) == ["one", "two"]


def test_a_rewound_conversation_must_be_rewound_again(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"

    async def program(runtime: Runtime, *, rewinds: bool) -> Any:
        async with runtime.session(Agent("a"), session_id="s") as session:
            mark = session.mark()
            await session.run("1")
            if rewinds:
                session.rewind(mark)
            await session.run("2")
            return session.messages

    rewinding = partial(program, rewinds=True)
    messages = live(journal, says("one", "two"), rewinding)
    assert live(journal, ScriptedServer(), rewinding) == messages
    with pytest.raises(JournalError, match="messages that are kept: expected 0, got 2"):
        live(journal, ScriptedServer(), partial(program, rewinds=False))


def test_an_id_that_is_used_again_is_another_session(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"

    async def program(runtime: Runtime) -> Any:
        first = await telling("1")(runtime)
        with pytest.raises(ModelCallError):
            await telling("2")(runtime)
        return first + await telling("3")(runtime)

    server = ScriptedServer({"content": "one"}, REFUSED, {"content": "three"})
    assert live(journal, server, program) == ["one", "three"]
    assert live(journal, ScriptedServer(), program) == ["one", "three"]
    expected = [("s", "closed", ["ended"]), ("s", "failed", ["failed"]), ("s", "closed", ["ended"])]
    assert states(journal) == expected


def test_a_session_is_open_once(tmp_path: Path) -> None:
    async def program(runtime: Runtime) -> None:
        async with runtime.session(Agent("a"), session_id="s"):
            await telling("1")(runtime)

    with pytest.raises(JournalError, match="s is open already"):
        live(tmp_path / "j.db", ScriptedServer(), program)


def test_sessions_of_tool_calls_have_one_name_in_every_life(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"

    helper = agent_tool(Agent("helper"), "Helps.")
    agent = Agent("a", tools=[helper])

    async def program(runtime: Runtime) -> list[str]:
        async with runtime.session(agent, session_id="s") as session:
            await session.run("1")
            async with session.fork() as fork:
                return [fork.session_id, (await fork.run("2")).text]

    answers = [calling(("helper", '{"task":"t"}')), {"content": "help"}, {"content": "one"}]
    with pytest.raises(ModelCallError):
        live(journal, ScriptedServer(*answers, REFUSED), program)
    assert live(journal, says("two"), program) == ["s.1", "two"]
    assert [name for name, *_ in states(journal)] == ["s", "s/1.1.1.1", "s.1"]


def test_two_writers_are_one_too_many_and_the_first_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "j.db"

    async def program(runtime: Runtime) -> None:
        with pytest.raises(JournalError, match=r"in use by process \d+ on .* since .*journal of"):
            async with SqliteJournal.open(journal):
                pass
        code = (
            "import anyio, sys\n"
            "from agent_runtime.sdk.sqlite_journal import SqliteJournal\n"
            "async def main():\n"
            "    async with SqliteJournal.open(sys.argv[1]): pass\n"
            "anyio.run(main)\n"
        )
        command = [sys.executable, "-c", code, str(journal)]
        other = subprocess.run(  # noqa: ASYNC221 - nobody else wants the loop
            command, capture_output=True, text=True, check=False
        )
        assert "is in use by process" in other.stderr
        assert [name for name, *_ in states(journal)] == [], "readers may look"

    live(journal, ScriptedServer(), program)
    live(journal, says("one"), telling("1"))


def spoil_header(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough for SQLite to look at it" * 40)


def spoil_pages(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def spoil_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def spoil_owner(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "fix"),
    [
        (spoil_header, "it is no journal; name another file"),
        (spoil_pages, "it is damaged; 'sqlite3 FILE .recover'"),
        (spoil_version, "version 99, and this Panjiu reads 1; use the Panjiu that wrote it"),
        (spoil_owner, "another program's database; name another file"),
    ],
)
def test_a_file_that_is_no_journal_any_more_says_what_to_do(
    tmp_path: Path, spoil: Any, fix: str
) -> None:
    journal = tmp_path / "j.db"
    live(journal, says("one"), telling("1"))
    spoil(journal)
    with pytest.raises(JournalError, match=fix):
        live(journal, ScriptedServer(), telling("1"))
    with pytest.raises(JournalError, match=fix):
        states(journal)


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="the folder must exist and be writable"):
        live(tmp_path / "none" / "j.db", ScriptedServer(), telling("1"))


@pytest.mark.parametrize(
    ("pragma", "fix"),
    [
        ("PRAGMA max_page_count = 1", "the disk is full; make room"),
        ("PRAGMA query_only = 1", "read-only; make the file and its folder writable"),
    ],
)
def test_a_run_that_can_not_be_taken_down_ends_and_nothing_is_written_after_it(
    tmp_path: Path, pragma: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "j.db"
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def kept(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)

    async def program(runtime: Runtime) -> None:
        async with runtime.session(Agent("a"), session_id="s") as session:
            await session.run("1")
            await anyio.sleep(1)  # what nobody waits for is written, too
            opened[-1].execute(pragma)
            try:
                with pytest.raises(JournalError, match=fix):
                    await session.run("2" * 100_000)
            finally:
                opened[-1].execute("PRAGMA query_only = 0")
                opened[-1].execute("PRAGMA max_page_count = 1000000")
            with pytest.raises(JournalError, match=fix):
                await session.run("3")

    with pytest.raises(JournalError, match=fix):
        live(journal, says("one", "two"), program)
    assert states(journal) == [("s", "waiting", ["ended"])]
    assert live(journal, says("2"), telling("1", "2")) == ["one", "2"]


def test_errors_come_back_as_they_were(tmp_path: Path) -> None:
    async def program(runtime: Runtime) -> Sequence[tuple[type[AgentError], str]]:
        caught = []
        async with runtime.session(Agent("a", tools=[add], max_turns=1), session_id="s") as session:
            for text in ("1", "2", "3"):
                try:
                    await session.run(text)
                except AgentError as error:
                    caught.append((type(error), str(error)))
        return caught

    server = ScriptedServer(calling(("add", '{"a":1,"b":2}')), REFUSED, {"content": "three"})
    before = live(tmp_path / "j.db", server, program)
    assert [kind for kind, _ in before] == [TurnLimitError, ModelCallError]
    assert live(tmp_path / "j.db", ScriptedServer(), program) == before


def test_a_hook_s_own_error_comes_back_as_one_of_ours_with_its_name(tmp_path: Path) -> None:
    async def main(*, breaks: bool) -> Any:
        async with SqliteJournal.open(tmp_path / "j.db") as journal:
            session = await journal.session(SessionOpened("s", "a", "m"))
            log = await session.step(StepBegun(StepKind.RUN, "1", 0, ()))
            if breaks:
                await log.failed(ValueError("a hook broke"))
                await session.step(StepBegun(StepKind.RUN, "2", 0, ()))

    in_virtual_time(partial(main, breaks=True))
    with pytest.raises(ModelCallError, match="ValueError: a hook broke"):
        in_virtual_time(partial(main, breaks=False))


class DeafServer(ScriptedServer):
    """Never answers when it is told that a session is over."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(*answers)
        path = "/v1/sessions/{session_id}"
        self.app.router.routes.append(Route(path, self.closed, methods=["DELETE"]))

    async def closed(self, _: Request) -> Response:
        await anyio.sleep_forever()
        raise AssertionError

    @override
    async def chat(self, request: Request) -> Response:
        response = await super().chat(request)
        response.headers["x-session-id"] = request.headers["x-session-id"]
        return response


def test_a_session_is_closed_in_the_journal_though_the_server_does_not_hear_of_it(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "j.db"
    assert live(journal, DeafServer({"content": "one"}), telling("1")) == ["one"]
    assert states(journal) == [("s", "closed", ["ended"])]
