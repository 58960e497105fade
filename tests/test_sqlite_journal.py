"""A journal in a file: who may write it, and what goes wrong with it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_runtime.errors import JournalError
from agent_runtime.sdk import Agent, Runtime
from agent_runtime.sdk.sqlite_journal import SqliteJournal
from tests.journal_places import live, says, states, telling
from tests.test_sdk import ScriptedServer


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
