"""Forks, children, rewinds, compaction: the same over HTTP and in the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from agent_runtime.errors import (
    ConfigError,
    ModelCallError,
    SessionBusyError,
    TurnLimitError,
)
from agent_runtime.sdk import (
    Agent,
    Event,
    RunResult,
    Runtime,
    RuntimeOptions,
    Session,
    TurnEnded,
    agent_tool,
    tool,
)
from tests.sdk_places import PLACES, caller, emulated, in_virtual_time

TRUNK = "Rules of the house, all of which hold. " * 300
Place = Callable[..., Any]


@tool(expected_s=3)
async def look_up(word: str) -> str:
    """Look a word up."""
    await anyio.sleep(0.002)
    return word


WRITER = Agent("writer", instructions=TRUNK)
HELPED = Agent("helped", instructions=TRUNK, tools=[look_up])


@pytest.mark.parametrize("place", PLACES)
def test_forks_share_the_trunk_s_kv_and_the_session_goes_on_as_the_one_it_adopts(
    place: Place,
) -> None:
    async def program(runtime: Runtime) -> Any:
        async with runtime.session(WRITER, session_id="plan") as session:
            await session.run("What is to be done?")
            mark = session.mark()
            drafts = await session.fork_map(["plan A", "plan B", "plan C"])
            assert session.mark() == mark, "the trunk knows nothing of its forks"
            best = max(drafts, key=lambda draft: (len(draft.text), draft.session_id))
            session.adopt(best)
            final = await session.run("Write it out.")
            return drafts, best, final, session.usage

    drafts, best, final, usage = place(program)
    assert [draft.session_id for draft in drafts] == ["plan.1", "plan.2", "plan.3"]
    for draft, name in zip(drafts, "ABC", strict=True):
        assert draft.messages[-2]["content"] == f"plan {name}"
    cached = [draft.usage.cached_tokens / draft.usage.prompt_tokens for draft in drafts]
    assert sorted(cached)[1] > 0.9, "one may have run where the trunk was not, but not two"
    assert final.messages[: len(best.messages)] == best.messages
    assert final.usage.cached_tokens > 0.9 * final.usage.prompt_tokens, "so is the adopted one's"
    assert usage.output_tokens > sum(draft.usage.output_tokens for draft in drafts)


def test_forks_can_be_joined_by_a_function_of_either_kind_and_few_at_once() -> None:
    num_at_once: list[int] = []

    async def joined(runtime: Runtime) -> Any:
        async def later(results: list[RunResult[str]]) -> int:
            await anyio.sleep(1)
            return len(results)

        async with runtime.session(WRITER) as session:
            longest = await session.fork_map(
                ["a", "b"], join=lambda results: max(results, key=lambda r: len(r.text)).text
            )
            number = await session.fork_map([str(n) for n in range(5)], join=later, at_once=2)
            return longest, number

    running = {"now": 0}

    def count(_: Session, event: Event) -> None:
        running["now"] += {"RunStarted": 1, "RunEnded": -1}.get(type(event).__name__, 0)
        num_at_once.append(running["now"])

    longest, number = in_virtual_time(joined, options=RuntimeOptions(hooks=[count]))
    assert isinstance(longest, str)
    assert number == 5
    assert max(num_at_once) == 2


def test_a_fork_that_fails_ends_the_others_and_says_why() -> None:
    seen: list[str] = []

    def fail_one(session: Session, event: Event) -> None:
        if isinstance(event, TurnEnded):
            seen.append(session.session_id)
            if session.session_id == "t.2":
                raise TurnLimitError("not this one")

    async def program(runtime: Runtime) -> Any:
        async with runtime.session(WRITER, session_id="t") as session:
            with pytest.raises(TurnLimitError, match="not this one"):
                await session.fork_map(["a", "b", "c"], at_once=1)
            return session.messages

    messages = in_virtual_time(program, options=RuntimeOptions(hooks=[fail_one]))
    assert len(messages) == 1
    assert seen == ["t.1", "t.2"]


@pytest.mark.parametrize("place", PLACES)
def test_a_rewound_session_forgets_and_finds_the_kv_before(place: Place) -> None:
    async def program(runtime: Runtime) -> Any:
        async with runtime.session(WRITER) as session:
            await session.run("begin")
            mark = session.mark()
            await session.run("a wrong way")
            session.rewind(mark)
            with pytest.raises(ConfigError, match="no mark at 99"):
                session.rewind(99)
            return await session.run("the right way")

    result = place(program)
    assert [m["content"] for m in result.messages if m["role"] == "user"] == [
        "begin",
        "the right way",
    ]
    assert result.usage.cached_tokens > 0.9 * result.usage.prompt_tokens


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("keep_last", [0, 1, 2, 3, 100])
def test_a_compacted_session_goes_on_with_the_summary_and_whole_runs(
    place: Place, keep_last: int
) -> None:
    async def program(runtime: Runtime) -> Any:
        async with runtime.session(HELPED) as session:
            for text in ("first", "second", "third"):
                await session.run(text)
            before = session.messages
            summary = await session.compact(keep_last=keep_last)
            after = session.messages
            await session.run("go on")
            return before, summary, after

    before, summary, after = place(program, caller())
    assert summary
    assert after[0] == before[0]
    assert after[1]["content"].endswith(summary)
    kept = after[2:]
    assert kept == (before[len(before) - len(kept) :] if kept else ())
    assert len(kept) >= min(keep_last, len(before) - 1)
    assert not kept or kept[0]["role"] == "user"


def test_summing_up_finds_the_kv_of_the_conversation_and_calls_no_tool() -> None:
    async def program(runtime: Runtime) -> Any:
        async with runtime.session(HELPED) as session:
            await session.run("begin")
            before = session.usage
            await session.compact()
            return before, session.usage

    before, after = in_virtual_time(program, caller())
    prompt = after.prompt_tokens - before.prompt_tokens
    assert after.cached_tokens - before.cached_tokens > 0.9 * prompt


@pytest.mark.parametrize("place", PLACES)
def test_agents_are_tools_whose_sessions_are_children(place: Place) -> None:
    critic = Agent("critic", instructions="Be harsh.")
    lead = Agent("lead", tools=[agent_tool(critic, "Ask for criticism.")])

    async def program(runtime: Runtime) -> Any:
        async with runtime.session(lead, session_id="lead-1") as session:
            result = await session.run("write")
            return result, session.usage

    result, usage = place(program, caller(2, 1, seed=3))
    told = [message for message in result.messages if message["role"] == "tool"]
    assert told, "the critic was asked"
    assert not any(message["content"].startswith("error") for message in told)
    assert usage.prompt_tokens > result.usage.prompt_tokens, "a parent pays for its children"


def test_a_session_at_work_can_t_be_forked_rewound_or_compacted() -> None:
    async def program(runtime: Runtime) -> Any:
        async with runtime.session(WRITER) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(session.run, "begin")
            await anyio.sleep(0.001)
            with pytest.raises(SessionBusyError):
                session.mark()
            with pytest.raises(SessionBusyError):
                session.rewind(0)
            with pytest.raises(SessionBusyError):
                await session.compact()
            with pytest.raises(SessionBusyError):
                await session.fork_map(["x"])
            with pytest.raises(SessionBusyError):
                async with session.fork():
                    pass

    in_virtual_time(program)


@pytest.mark.parametrize("place", [in_virtual_time, emulated])
def test_what_a_program_raises_comes_out_as_it_is(place: Place) -> None:
    async def program(_: Runtime) -> None:
        raise ZeroDivisionError("the program's own")

    with pytest.raises(ZeroDivisionError, match="the program's own"):
        place(program)


@pytest.mark.parametrize("place", PLACES)
def test_an_impossible_session_id_is_refused_by_the_server(place: Place) -> None:
    async def program(runtime: Runtime) -> Any:
        async with runtime.session(WRITER, session_id="x" * 300) as session:
            with pytest.raises(ModelCallError, match="session"):
                await session.run("begin")

    place(program)
