"""Conversations: what goes on the wire is what was said, whatever was taken back meanwhile."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.sdk.compaction import compacted
from agent_runtime.sdk.conversation import Conversation, ToolCall

texts = st.text(st.characters(codec="utf-8") | st.just("\ud800"), max_size=6)
messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts})
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), messages),
        st.tuples(st.just("cut"), st.integers(0, 9)),
        st.tuples(st.just("replace"), st.tuples(st.integers(0, 9), st.lists(messages, max_size=3))),
        st.tuples(st.just("note"), st.none()),
    ),
    max_size=30,
)


@given(steps)
def test_what_is_sent_is_what_was_said(steps: list[tuple[str, Any]]) -> None:
    conversation, said = Conversation(), []
    noted: list[Any] = []
    for step, value in steps:
        match step:
            case "add":
                conversation.add(value)
                said.append(value)
            case "cut":
                conversation.cut(value)
                said = said[:value]
            case "replace":
                said = [*said[: value[0]], *value[1]]
                conversation.replace(said)
            case _:
                conversation.note_unchanged()
                noted = list(said)
        assert list(conversation.messages) == said
        kept = conversation.num_unchanged
        assert [id(m) for m in said[:kept]] == [id(m) for m in noted[:kept]]
        assert [*noted[:kept], *conversation.changed()] == said
    wire = conversation.encoded_between(b"[", b"]")
    assert json.loads(wire) == said
    copy = conversation.copy()
    copy.add({"role": "user", "content": "more"})
    assert conversation.encoded_between(b"[", b"]") == wire


def calling(*ids: str) -> dict[str, Any]:
    calls = [{"id": name, "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def test_calls_are_open_until_their_results_are_there() -> None:
    conversation = Conversation([{"role": "user", "content": "begin"}])
    assert conversation.open_calls() == []
    conversation.add(calling("a", "b"))
    conversation.add({"role": "tool", "tool_call_id": "b", "content": "x"})
    assert conversation.open_calls() == [ToolCall("a", "f", "{}")]
    conversation.add({"role": "tool", "tool_call_id": "a", "content": "y"})
    assert conversation.open_calls() == []
    conversation.add(calling("a"))
    assert conversation.open_calls() == [ToolCall("a", "f", "{}")], "ids may come again"


@given(st.lists(st.sampled_from("uct"), max_size=12), st.integers(0, 14), st.booleans())
def test_what_stays_of_a_compacted_conversation_begins_with_a_user(
    kinds: list[str], keep_last: int, has_system: bool
) -> None:
    role = {"u": "user", "c": "assistant", "t": "tool"}
    head = [{"role": "system", "content": "s"}] if has_system else []
    said = [*head, {"role": "user", "content": "u"}, *({"role": role[kind]} for kind in kinds)]
    after = compacted(said, "summary", keep_last)
    assert after[: len(head)] == head
    assert after[len(head)]["content"].endswith("summary")
    kept = after[len(head) + 1 :]
    assert kept == said[len(said) - len(kept) :]
    assert len(kept) >= min(keep_last, len(said) - len(head))
    assert not kept or kept[0]["role"] == "user"
