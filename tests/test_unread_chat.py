"""A chat's prompt that goes on from the bytes of the one before is as if it were read whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.relay.body_fields import (
    read_chat_fields,
    read_fields,
)
from agent_runtime.gateway.relay.chat_apis import ChatApi
from agent_runtime.gateway.relay.relayed_api import RelayedPrompt
from agent_runtime.gateway.relay.unread_chat import UnreadChat
from agent_runtime.loose_json import MAX_DEPTH
from agent_runtime.prompts.chat_prompt import PromptMemory
from agent_runtime.prompts.sent_prompt import SentPrompt

MOST_TOKENS = 10_000
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]

texts = st.text(alphabet=st.sampled_from('ab"]}{[, \\é😀\n'), max_size=6)
messages = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}),
    st.fixed_dictionaries({"role": st.just("tool"), "content": texts, "tool_call_id": texts}),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": st.lists(st.fixed_dictionaries({"text": texts}))}
    ),
)


def prompt_of(body: dict[str, Any], indent: int | None = None) -> RelayedPrompt:
    return ChatApi().prompt(read_chat_fields(json.dumps(body, indent=indent).encode()))


def state(memory: PromptMemory) -> tuple[object, ...]:
    return memory.tokens(), memory.hashes(), memory.salt


@settings(max_examples=300)
@given(data=st.data())
def test_it_is_the_prompt_that_is_read_whole(data: st.DataObject) -> None:
    memory = PromptMemory(4)
    said: list[Any] = []
    for _ in range(data.draw(st.integers(1, 6))):
        said = said[: data.draw(st.one_of(st.just(len(said)), st.integers(0, len(said))))]
        said += data.draw(st.lists(messages, max_size=3))
        odds: list[Any] = [None, None, None, None, 3, "}", []]
        odd = data.draw(st.sampled_from(odds))
        body = {
            "model": "m",
            "messages": said if odd is None else [*said, odd],
            "tools": data.draw(st.sampled_from([TOOLS, TOOLS, TOOLS, [], None])),
        }
        salt = data.draw(st.sampled_from([None, None, None, "s"]))
        prompt = prompt_of(body, indent=data.draw(st.sampled_from([None, None, 1])))
        if data.draw(st.integers(0, 4)) == 0:
            prompt.history.digests()
        num_tokens = prompt.open_in(memory, salt, MOST_TOKENS)
        read_whole = PromptMemory(4)
        assert num_tokens == read_whole.open_prompt(prompt.pieces, salt)
        assert state(memory) == state(read_whole)
        if data.draw(st.integers(0, 9)) == 0:
            memory = memory.copy()
        if data.draw(st.integers(0, 9)) == 0:
            memory.clear()


def test_messages_that_were_there_before_are_not_read_again() -> None:
    unreadable, more = b'[{"role":"user","content":"\xff"}', b', {"role":"user","content":"a"} ]'

    def opened(messages: bytes, tools: bytes = b"[]") -> PromptMemory:
        memory = PromptMemory(16)
        memory.open_prompt((), None, SentPrompt.first(unreadable, len(unreadable), b"[]"))
        fields = read_chat_fields(b'{"messages":%b,"tools":%b}' % (messages, tools))
        ChatApi().prompt(fields).open_in(memory, None, MOST_TOKENS)
        return memory

    alone = PromptMemory(16)
    prompt_of({"messages": [{"role": "user", "content": "a"}]}).open_in(alone, None, MOST_TOKENS)
    memory = opened(unreadable + more)
    assert memory.tokens() == alone.tokens()
    assert memory.sent is not None
    assert memory.sent.leads(unreadable + more, b"[]")
    assert not memory.sent.leads(unreadable + more, b"")
    assert not opened(unreadable + b"]").tokens()  # asked once more
    for messages, tools in (
        (unreadable.replace(b"user", b"tool") + more, b"[]"),
        (unreadable + more, b"[{}]"),
    ):
        with pytest.raises(InvalidRequestError, match="not JSON"):
            opened(messages, tools)


def test_what_is_too_long_is_not_kept() -> None:
    memory = PromptMemory(16)
    said = [{"role": "user", "content": "a b c"}]
    prompt_of({"messages": said}).open_in(memory, None, 100)
    said.append({"role": "user", "content": "word " * 10_000})
    assert prompt_of({"messages": said}).open_in(memory, None, 100) == 1
    assert memory.sent is None
    assert not memory.tokens()


def test_members_are_those_of_the_whole_body() -> None:
    body = json.dumps(
        {"messages": [{"role": "user", "content": "é"}], "tools": TOOLS, "n": 1, "x": None}
    ).encode()
    fields = read_chat_fields(body)
    assert "messages" not in fields
    assert fields.with_messages() == read_fields(body)
    assert read_chat_fields(b"{}").with_messages() == {}
    assert isinstance(ChatApi().prompt(fields), UnreadChat)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"messages":[],"n":1e999}', "Number out of range"),
        (b'{"messages":[' + b" " * 100 + b"}", "not JSON"),
        (b"[]", "must be a JSON object"),
        (json.dumps(dict.fromkeys(map(str, range(10_001)))).encode(), "more than 10,000 members"),
    ],
)
def test_what_is_wrong_is_told(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem):
        read_chat_fields(body)


@pytest.mark.parametrize("where", ["messages", "tools"])
def test_what_is_nested_too_deep_is_refused_wherever_it_is(where: str) -> None:
    def opened(levels: int) -> int:
        deep = b"[" * levels + b"]" * levels
        body = {"messages": b'[{"role": "user", "content": "a"}]', "tools": b"[]"}
        body[where] = b'[{"role":"user","content":%b}]' % deep
        sent = b'{"messages":%b,"tools":%b}' % (body["messages"], body["tools"])
        return ChatApi().prompt(read_chat_fields(sent)).open_in(PromptMemory(16), None, MOST_TOKENS)

    assert opened(MAX_DEPTH - 2) > 1
    with pytest.raises(InvalidRequestError, match="nested in more than 200 levels"):
        opened(MAX_DEPTH - 1)
