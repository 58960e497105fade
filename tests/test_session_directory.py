"""Whose turn a request is: the directory's limits, and what clients do to ids and histories."""

import gc
from typing import Any

import httpx2
import pytest

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.session_directory import ChatSession, SessionDirectory
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.gateway.waiting_line import WaitingLine
from agent_runtime.prompts.chat_prompt import RenderedMessage, chain_digests
from tests.fake_runner import HELLO, FakeRunner, app_over, chat, send
from tests.served_rack import MODEL, openai_client, served_rack

anyio_test = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def history(*texts: str) -> list[bytes]:
    return chain_digests([RenderedMessage("user", text) for text in texts])


def forgotten_by_calls(sessions: SessionDirectory, now_s: float) -> list[list[str]]:
    """What ``forget_old`` gives, call after call, until it gives nothing."""
    calls: list[list[str]] = []
    while not calls or calls[-1]:
        calls.append([str(session_id) for session_id in sessions.forget_old(now_s)])
    return calls[:-1]


@pytest.mark.parametrize("key", ["", " ", " a", "a ", "a\nb", "a\0", "\x7f", "x" * 257, "a\u2028"])
def test_an_id_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError, match="1 to 256 printable characters") as refused:
        SessionDirectory(16).find(SessionKeys(exact=key), (), 0.0)
    assert refused.value.param == "session_id"


def test_the_longest_unseen_goes_first_and_being_asked_for_is_being_seen() -> None:
    sessions = SessionDirectory(16, max_sessions=2)
    for at_s, key in enumerate("abca"):
        sessions.find(SessionKeys(exact=key), (), float(at_s))
    assert forgotten_by_calls(sessions, 4.0) == [["b"]]
    assert len(sessions) == 2


def test_a_session_is_kept_to_the_end_of_its_idle_time_and_not_longer() -> None:
    sessions = SessionDirectory(16, idle_ttl_s=100.0)
    kept = sessions.find(SessionKeys(exact="a"), (), 5.0)
    assert sessions.forget_old(105.0) == []
    assert sessions.find(SessionKeys(exact="a"), (), 105.0) is kept
    assert sessions.forget_old(205.5) == ["a"]
    assert sessions.find(SessionKeys(exact="a"), (), 205.5) is not kept


def test_sessions_that_are_closed_do_not_stay_in_memory_until_they_would_have_expired() -> None:
    def num_alive() -> int:
        gc.collect()
        return sum(isinstance(one, ChatSession) for one in gc.get_objects())

    sessions, before = SessionDirectory(16, idle_ttl_s=3600.0), num_alive()
    kept = [sessions.find(SessionKeys(exact=f"kept-{number}"), (), 0.0) for number in range(100)]
    for number in range(2000):
        sessions.close(sessions.find(SessionKeys(exact=f"closed-{number}"), (), float(number) / 10))
    assert num_alive() - before == len(kept)
    assert len(sessions._expiries) < 400
    assert sessions.forget_old(3601.0) == [session.session_id for session in kept]
    assert len(sessions) == 0


@anyio_test
async def test_a_session_that_is_closed_under_way_is_closed_again_when_its_turn_has_ended() -> None:
    runner = FakeRunner()
    opening = Opening(runner, Models.of_one("m", 0, 100), SessionDirectory(16), 100, WaitingLine(9))
    session = await opening.find_session(SessionKeys(exact="a"), (), None)
    with opening.turn_under_way(session), opening.turn_under_way(session):
        opening.sessions.close(session)
        assert runner.closed == []
    assert runner.closed == ["a"]
    again = await opening.find_session(SessionKeys(exact="a"), (), None)
    with opening.turn_under_way(session):
        pass  # the id is another session's now, which will be closed itself
    with opening.turn_under_way(again):
        pass
    assert runner.closed == ["a"]


def test_thousands_of_busy_sessions_over_the_limit_cost_no_scan_of_them_all() -> None:
    sessions = SessionDirectory(16, max_sessions=10)
    busy = [sessions.find(SessionKeys(exact=f"busy-{number}"), (), 0.0) for number in range(2000)]
    for session in busy:
        session.num_active_turns = 1
    assert sessions.forget_old(1.0) == []
    passed_over = [session for session in busy if session.last_seen_s == 1.0]
    assert 0 < len(passed_over) < 20
    for session in busy:
        session.num_active_turns = 0
    assert sum(len(call) for call in forgotten_by_calls(sessions, 2.0)) == 1990


def test_a_turn_tried_again_and_again_is_remembered_once() -> None:
    sessions = SessionDirectory(16)
    session = sessions.find(SessionKeys(exact="a"), (), 0.0)
    for _ in range(5):
        sessions.remember(session, SessionKeys(), history("x")[-1])
    assert len(session.marks) == 1


def test_a_history_belongs_to_who_had_it_last_and_outlives_who_had_it_first() -> None:
    sessions = SessionDirectory(16, idle_ttl_s=10.0)
    first = sessions.find(SessionKeys(exact="first"), (), 0.0)
    sessions.remember(first, SessionKeys(), history("x")[-1])
    second = sessions.find(SessionKeys(exact="second"), (), 8.0)
    sessions.remember(second, SessionKeys(), history("x")[-1])
    assert sessions.forget_old(12.0) == ["first"]
    assert sessions.find(SessionKeys(), history("x", "y"), 12.0) is second
    sessions.remember(first, SessionKeys(), history("z")[-1])
    assert sessions.find(SessionKeys(), history("z"), 12.0) is not first, "it is forgotten"


class Conversation:
    """A client without a session id, over the fake runner."""

    def __init__(self) -> None:
        self.runner = FakeRunner()
        self._app = app_over(self.runner)

    async def ask(self, messages: list[Any], **fields) -> httpx2.Response:
        body = chat(**{"messages": messages, "max_tokens": 60, "ignore_eos": True, **fields})
        response = await send(self._app, body)
        assert response.status_code == 200
        return response

    def num_blocks_kept(self) -> int:
        """How many blocks of the turn before, its reply's included, the last turn starts with."""
        before, last = self.runner.requests[-2:]
        kept = [a == b for a, b in zip(before.block_hashes, last.block_hashes, strict=False)]
        assert kept == sorted(kept, reverse=True), "a chain differs from one block on"
        return sum(kept)


@anyio_test
@pytest.mark.parametrize(
    "sent_back",
    [
        lambda message: message,
        lambda message: {"role": "assistant", "content": message["content"]},
        lambda message: {**message, "content": message["content"].strip()},
        lambda message: {**message, "content": [{"type": "text", "text": message["content"]}]},
        lambda message: {**message, "tool_calls": [], "function_call": None, "name": ""},
        lambda message: dict(reversed(message.items())),
    ],
    ids=["as it was", "bare", "stripped", "as a part", "with what was not there", "reordered"],
)
async def test_however_a_client_sends_a_reply_back_its_session_and_blocks_are_found(
    sent_back: Any,
) -> None:
    client, messages, ids = Conversation(), list(HELLO), []
    for turn in range(3):
        answer = await client.ask(messages)
        ids.append(answer.headers["x-session-id"])
        reply = answer.json()["choices"][0]["message"]
        messages += [sent_back(reply), {"role": "user", "content": f"Go on with {turn}."}]
        if turn:
            assert client.num_blocks_kept() == len(client.runner.requests[-2].block_hashes)
    assert len(set(ids)) == 1


@anyio_test
async def test_an_edited_history_keeps_the_session_and_the_blocks_before_the_edit() -> None:
    client = Conversation()
    long = {"role": "system", "content": "You read files with care. " * 20}
    first = await client.ask([long, *HELLO])
    reply = first.json()["choices"][0]["message"]
    await client.ask([long, *HELLO, reply, {"role": "user", "content": "Now the tests."}])
    edited = await client.ask([long, *HELLO, reply, {"role": "user", "content": "No: the docs."}])
    assert edited.headers["x-session-id"] == first.headers["x-session-id"]
    num_first = len(client.runner.requests[0].block_hashes)
    assert client.num_blocks_kept() >= num_first
    compacted = await client.ask(
        [long, {"role": "user", "content": "Summary: all is well."}], session_id="found-1"
    )
    assert compacted.headers["x-session-id"] == first.headers["x-session-id"]
    assert 0 < client.num_blocks_kept() < num_first


@anyio_test
@pytest.mark.parametrize("key", ["会话", "é", "100%", "a b", "a%41", "~agent/7?x=1", "👩"])
async def test_an_id_in_any_script_comes_back_in_a_header_that_finds_it_again(key: str) -> None:
    runner = FakeRunner()
    app = app_over(runner)
    named = await send(app, chat(session_id=key))
    echo = named.headers["x-session-id"]
    assert echo.isascii()
    await send(app, chat(), headers={"X-Session-ID": echo})
    await send(app, chat(), headers={"X-Session-ID": key.replace("%", "%25").encode()})
    assert [request.session_id for request in runner.requests] == [key] * 3


@anyio_test
async def test_an_empty_id_in_the_body_is_refused_whatever_the_header_says() -> None:
    response = await send(
        app_over(FakeRunner()), chat(session_id=""), headers={"X-Session-ID": "a"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "session_id"


@anyio_test
async def test_a_prompt_too_long_is_refused_without_a_turn_and_the_session_goes_on() -> None:
    runner = FakeRunner(max_context_tokens=50)
    app = app_over(runner)
    long = [*HELLO, {"role": "user", "content": "word " * 50}]
    named: dict[str, Any] = {"session_id": "a"}
    await send(app, chat(**named))
    refused = await send(app, chat(messages=long, **named))
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert "maximum context length is 50 tokens. However, your prompt contains" in error["message"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    await send(app, chat(**named))
    first, last = runner.requests
    assert first.block_hashes == last.block_hashes
    assert first.num_prompt_tokens == last.num_prompt_tokens


@anyio_test
async def test_a_session_is_named_by_the_body_or_else_by_the_header() -> None:
    async with served_rack() as served, openai_client(served) as client:
        create = client.chat.completions.with_raw_response.create
        both = await create(
            model=MODEL,
            messages=HELLO,
            max_tokens=2,
            extra_body={"session_id": "from body"},
            extra_headers={"X-Session-ID": "from header"},
        )
        header = await create(
            model=MODEL, messages=HELLO, max_tokens=2, extra_headers={"X-Session-ID": "from header"}
        )
        neither = await create(model=MODEL, messages=HELLO, max_tokens=2)
        other = await create(model=MODEL, messages=HELLO, max_tokens=2)
        assert both.headers["x-session-id"] == "from body"
        assert header.headers["x-session-id"] == "from header"
        assert neither.headers["x-session-id"] != other.headers["x-session-id"], (
            "two conversations that begin alike are two conversations"
        )
        assert served.scheduler.num_sessions == 4


@anyio_test
async def test_sessions_beyond_the_limit_are_forgotten_by_the_scheduler_too() -> None:
    async with served_rack(max_sessions=3) as served, openai_client(served) as client:
        for number in range(8):
            await client.chat.completions.create(
                model=MODEL,
                messages=HELLO,
                max_tokens=1,
                extra_body={"session_id": f"s{number}"},
            )
        assert served.scheduler.num_sessions <= 4
