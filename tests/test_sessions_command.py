"""``panjiu sessions``: looking into a journal, and going on with what broke off."""

from __future__ import annotations

import json
import threading  # noqa: TID251 - a server beside the command, which blocks
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.responses import JSONResponse

from agent_runtime.cli.main import main
from agent_runtime.cli.rack_server import listen
from agent_runtime.errors import ConfigError, ModelCallError
from agent_runtime.sdk import Agent, Runtime, agent_tool, tool
from tests.journal_places import live, telling
from tests.test_sdk import ScriptedServer, add, calling

REFUSED = JSONResponse({"error": {"message": "not today"}}, 400)
CODER = Agent("coder", "You code.", tools=[add])
HELPED = Agent("helped", tools=[agent_tool(Agent("helper"), "Helps.", name="helper")])


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["sessions", *args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def journal(journal_place: str) -> str:
    """One that has a session whose second run failed after a tool call, and one that is closed."""
    path = journal_place

    async def program(runtime: Runtime) -> None:
        await telling("hello", session_id="other")(runtime)
        await telling("begin", "add 1 and 2", agent=CODER, session_id="coder-7")(runtime)

    called = calling(("add", '{"a":1,"b":2}'))
    server = ScriptedServer({"content": "hi"}, {"content": "begun"}, called, REFUSED)
    with pytest.raises(ModelCallError):
        live(path, server, program)
    return path


@contextmanager
def served(server: ScriptedServer) -> Iterator[str]:
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(server.app, log_level="warning", lifespan="off", ws="none")
        web = uvicorn.Server(config)
        thread = threading.Thread(target=partial(web.run, sockets=[listening]))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            web.should_exit = True
            thread.join()


def test_list_tells_what_every_session_does(
    journal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "list", journal, "--json")
    assert code == 0
    other, coder = json.loads(out)
    assert (other["session_id"], other["state"]) == ("other", "closed")
    assert (coder["agent"], coder["state"], coder["num_steps"], coder["num_turns"]) == (
        "coder",
        "failed",
        2,
        2,
    )
    code, out, _ = run(capsys, "list", journal, "--state", "failed")
    assert "coder-7" in out
    assert "other" not in out
    assert "no program has it open" in out


def test_show_reads_like_the_conversation(journal: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", journal, "coder-7")
    assert code == 0
    places = [
        out.index(text)
        for text in (
            "system: You code.",
            "step 1: run, ended",
            "user: begin",
            "assistant: begun",
            "step 2: run, failed",
            'calls add {"a":1,"b":2} (c0)',
            "result of c0: 3.0",
            "ModelCallError: the server answered 400: not today",
        )
    ]
    assert places == sorted(places)
    _, out, _ = run(capsys, "show", journal, "coder-7", "--json")
    steps = json.loads(out)["steps"]
    assert [step["state"] for step in steps] == ["ended", "failed"]
    assert [m["role"] for m in steps[1]["messages"]] == ["assistant", "tool"]
    assert len(steps[1]["messages_before"]) == 3


def test_show_knows_forks_rewinds_and_compactions(
    journal_place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_place

    async def program(runtime: Runtime) -> Any:
        async with runtime.session(Agent("a", "be"), session_id="s") as session:
            await session.run("1")
            mark = session.mark()
            await session.run("2")
            session.rewind(mark)
            async with session.fork() as fork:
                result = await fork.run("3")
            session.adopt(result)
            await session.compact()
            return (await session.run("4")).messages, result.messages

    texts = ["one", "two", "three", "sum", "four"]
    server = ScriptedServer(*[{"content": text} for text in texts])
    after, forked = live(journal, server, program)
    _, out, _ = run(capsys, "show", journal, "s", "--json")
    steps = json.loads(out)["steps"]
    assert steps[2]["messages_before"] == list(forked)
    told = {"role": "user", "content": "4"}
    assert [*steps[-1]["messages_before"], told, *steps[-1]["messages"]] == list(after)
    _, out, _ = run(capsys, "show", journal, "s.1", "--json")
    assert json.loads(out)["steps"][0]["messages_before"] == list(forked[:-2])
    _, out, _ = run(capsys, "show", journal, "s")
    assert "goes on from message 3; later ones are left" in out


def test_resume_goes_on_and_the_program_finds_the_answer(
    journal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ScriptedServer({"content": "three"})
    with served(server) as url:
        agent = f"{__name__}:CODER"
        code, out, err = run(capsys, "resume", journal, "coder-7", "--agent", agent, "--url", url)
    assert (code, out) == (0, "three\n"), err
    assert "2 turns" in err
    assert [m["role"] for m in server.asked[0]["messages"]][-2:] == ["assistant", "tool"]
    assert server.asked[0]["model"] == "m"
    told = telling("begin", "add 1 and 2", agent=CODER, session_id="coder-7")

    async def program(runtime: Runtime) -> Any:
        await telling("hello", session_id="other")(runtime)
        return await told(runtime)

    assert live(journal, ScriptedServer(), program) == ["begun", "three"]
    code, _, err = run(capsys, "resume", journal, "coder-7", "--agent", agent)
    assert (code, "nothing to resume: it is closed" in err) == (2, True)


def test_resume_needs_no_agent_where_no_tool_is_under_way(
    journal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ScriptedServer({"content": "three"})
    with served(server) as url:
        code, out, _ = run(capsys, "resume", journal, "coder-7", "--url", url, "--model", "other")
    assert (code, out) == (0, "three\n")
    assert server.asked[0]["model"] == "other"
    assert "tools" not in server.asked[0]
    assert server.asked[0]["messages"][0] == {"role": "system", "content": "You code."}


def test_children_of_a_resumed_run_go_on_as_well(journal_place: str) -> None:
    journal = journal_place

    program = telling("go", agent=HELPED)
    helper_calls = calling(("helper", '{"task":"t"}'))
    server = ScriptedServer(helper_calls, {"content": "helped"}, REFUSED)
    with pytest.raises(ModelCallError):
        live(journal, server, program)

    async def resuming(runtime: Runtime) -> Any:
        return (await runtime.resume("s", HELPED)).text

    assert live(journal, ScriptedServer({"content": "done"}), resuming) == "done"
    assert live(journal, ScriptedServer(), program) == ["done"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["coder-8"], "has no session 'coder-8'; 'panjiu sessions list"),
        (["other"], "nothing to resume: it is closed"),
        (["coder-7", "--agent", "CODER"], "write MODULE:NAME"),
        (["coder-7", "--agent", "no_such_module:CODER"], "no module 'no_such_module' in"),
        (["coder-7", "--agent", f"{__name__}:LOST"], "it has: CODER, HELPED"),
        (["coder-7", "--agent", f"{__name__}:HELPED", "--url", "http://x/v1"], "not of 'helped'"),
        (["coder-7"], "no server: pass --url, or set OPENAI_BASE_URL"),
    ],
)
def test_what_can_not_be_resumed_says_why(
    journal: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    says: str,
) -> None:
    for name in ("PANJIU_BASE_URL", "OPENAI_BASE_URL", "PANJIU_MODEL"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = run(capsys, "resume", journal, *args)
    assert code == 2
    assert says in err


def test_a_tool_that_is_under_way_needs_its_agent(journal_place: str) -> None:
    journal = journal_place

    @tool
    async def wait() -> None:
        """Take for ever."""
        await anyio.sleep_forever()

    async def program(runtime: Runtime) -> None:
        with anyio.fail_after(5):
            await telling("go", agent=Agent("a", tools=[wait]))(runtime)

    with pytest.raises(TimeoutError):
        live(journal, ScriptedServer(calling(("wait", "{}"))), program)

    async def resuming(runtime: Runtime) -> None:
        await runtime.resume("s")

    with pytest.raises(ConfigError, match="s waits for wait; name the agent that has it"):
        live(journal, ScriptedServer(), resuming)


def test_a_journal_that_is_none_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "list", "README.md")
    assert (code, "it is no journal" in err) == (1, True)
    code, _, err = run(capsys, "show", "none.db", "s")
    assert (code, "no such file" in err) == (1, True)


@pytest.mark.parametrize("action", ["list", "show", "resume"])
def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str], action: str) -> None:
    with pytest.raises(SystemExit):
        main(["sessions", action, "--help"])
    assert f"panjiu sessions {action} fleet.db" in capsys.readouterr().out
