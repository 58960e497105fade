"""The journal of sessions: what it gives back, what it refuses, what goes wrong with its file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
from agent_runtime.sdk.journal_places import opened_journal
from tests.journal_places import in_virtual_time, live, says, states, telling
from tests.test_sdk import ScriptedServer, add, calling, look_up

REFUSED = JSONResponse({"error": {"message": "no"}}, 400)


@pytest.fixture
def journal(journal_place: str) -> str:
    return journal_place


def test_what_was_answered_is_not_asked_again(journal: str) -> None:
    assert live(journal, says("one", "two"), telling("1", "2")) == ["one", "two"]
    server = says("three")
    assert live(journal, server, telling("1", "2", "3")) == ["one", "two", "three"]
    assert [m["content"] for m in server.asked[0]["messages"]] == ["1", "one", "2", "two", "3"]
    assert states(journal) == [("s", "closed", ["ended"] * 3)]


def test_a_failed_last_step_is_tried_again_and_an_earlier_one_fails_as_it_did(
    journal: str,
) -> None:
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


def test_a_run_goes_on_from_its_last_finished_tool_call(journal: str) -> None:
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


def test_a_cancelled_run_that_the_program_went_on_from_fails_again(journal: str) -> None:
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


def test_a_cancelled_run_that_ended_the_program_goes_on(journal: str) -> None:
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
    journal: str, program: Any, says_: str
) -> None:
    live(journal, says("one", "two"), telling("1", "2"))
    with pytest.raises(JournalError, match=says_):
        live(journal, ScriptedServer(), program)
    assert live(journal, ScriptedServer(), telling("1", "2")) == ["one", "two"]


def test_a_rewound_conversation_must_be_rewound_again(journal: str) -> None:
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


def test_an_id_that_is_used_again_is_another_session(journal: str) -> None:
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


def test_a_session_is_open_once(journal: str) -> None:
    async def program(runtime: Runtime) -> None:
        async with runtime.session(Agent("a"), session_id="s"):
            await telling("1")(runtime)

    with pytest.raises(JournalError, match="s is open already"):
        live(journal, ScriptedServer(), program)


def test_sessions_of_tool_calls_have_one_name_in_every_life(journal: str) -> None:
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


def test_errors_come_back_as_they_were(journal: str) -> None:
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
    before = live(journal, server, program)
    assert [kind for kind, _ in before] == [TurnLimitError, ModelCallError]
    assert live(journal, ScriptedServer(), program) == before


def test_a_hook_s_own_error_comes_back_as_one_of_ours_with_its_name(journal: str) -> None:
    async def main(*, breaks: bool) -> Any:
        async with opened_journal(journal) as opened:
            session = await opened.session(SessionOpened("s", "a", "m"))
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
    journal: str,
) -> None:
    assert live(journal, DeafServer({"content": "one"}), telling("1")) == ["one"]
    assert states(journal) == [("s", "closed", ["ended"])]
