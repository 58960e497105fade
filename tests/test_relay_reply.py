"""Replies read as they pass: nothing added, nothing lost, wherever the bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.relay.chat_apis import ChatApi, CompletionsApi
from agent_runtime.gateway.relay.chat_replies import StreamedReply, WholeReply
from agent_runtime.gateway.relay.relayed_api import RelayedApi
from agent_runtime.gateway.relay.relayed_call import RelayedCall, read_call
from agent_runtime.gateway.session_keys import Caller

NASTY = '"finish_reason":"stop" "usage":{ [DONE] \n\n data: {"role":"assistant"} \\ "error":{'


def read(api: RelayedApi, body: bytes) -> RelayedCall:
    return read_call(api, body, Caller({}), {})


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def choice(index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "logprobs": None, "finish_reason": None, **more}


def stream_of(
    texts: list[str], *, name: str = "id-1", usage: bool = True, done: bool = True, cached: int = 4
) -> bytes:
    head = {"id": name, "object": "chat.completion.chunk", "created": 7, "model": "m"}
    data = event({**head, "choices": [choice(delta={"role": "assistant", "content": ""})]})
    for number, text in enumerate(texts):
        reason = "length" if done and number == len(texts) - 1 else None
        data += event({**head, "choices": [choice(delta={"content": text}, finish_reason=reason)]})
    if usage:
        used = {"prompt_tokens": 10, "completion_tokens": len(texts), "total_tokens": 99}
        used["prompt_tokens_details"] = {"cached_tokens": cached}  # type: ignore[assignment]
        data += event({**head, "choices": [], "usage": used})
    return data + (b"data: [DONE]\n\n" if done else b"")


texts = st.lists(st.text(min_size=1) | st.just(NASTY), min_size=1, max_size=20)
cuts = st.lists(st.integers(0, 5000), max_size=10)


def fed(reader: StreamedReply, data: bytes, at: list[int]) -> bytes:
    """Feed a reply in pieces; return what is passed on."""
    edges = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    return b"".join([reader.feed(piece) for piece in pieces]) + reader.end()


@given(texts, cuts, st.booleans())
def test_a_stream_passes_whole_but_for_the_usage_nobody_asked_for(
    said: list[str], at: list[int], wants: bool
) -> None:
    data = stream_of(said)
    reader = StreamedReply(wants_usage=wants)
    assert fed(reader, data, at) == (data if wants else stream_of(said, usage=False))
    facts = reader.facts()
    assert reader.is_complete
    assert facts.num_output_tokens == len(said)
    assert (facts.num_prompt_tokens, facts.num_cached_tokens) == (10, 4)
    assert facts.finish_reason == "length"
    assert reader.message() == {"role": "assistant", "content": "".join(said)}


@given(texts, texts, cuts, cuts, st.integers(0, 40))
def test_two_halves_are_one_reply_to_the_client(
    first: list[str], second: list[str], at: list[int], again_at: list[int], torn: int
) -> None:
    begun = stream_of(first, usage=False, done=False)
    half = begun + event({"id": "id-1", "choices": [choice(delta={"content": "lost"})]})[:torn]
    reader = StreamedReply(wants_usage=True)
    passed = fed(reader, half, at)
    assert passed == begun
    assert not reader.is_complete
    reader = reader.continuation()
    passed += fed(reader, stream_of(second, name="other"), again_at)
    events = [json.loads(e.removeprefix(b"data: ")) for e in passed.split(b"\n\n")[:-2]]
    assert {e["id"] for e in events} == {"id-1"}
    deltas = [c["delta"] for e in events for c in e["choices"]]
    assert [d["content"] for d in deltas] == ["", *first, *second]
    assert sum("role" in d for d in deltas) == 1
    num = len(first) + len(second)
    usage = events[-1]["usage"]
    assert usage["completion_tokens"] == num == reader.num_output_tokens
    assert usage["total_tokens"] == usage["prompt_tokens"] + num
    assert (reader.message() or {})["content"] == "".join([*first, *second])


def test_tool_calls_of_a_stream_are_known_at_its_end() -> None:
    head = {"id": "x"}
    opened = {"index": 0, "id": "c", "type": "function", "function": {"name": "look"}}
    more = {"index": 0, "function": {"arguments": '{"a": 1}'}}
    data = event({**head, "choices": [choice(delta={"role": "assistant", "content": ""})]})
    data += event({**head, "choices": [choice(delta={"tool_calls": [opened]})]})
    data += event({**head, "choices": [choice(delta={"tool_calls": [more]})]})
    data += event({**head, "choices": [choice(delta={}, finish_reason="tool_calls")]})
    reader = StreamedReply(wants_usage=False)
    assert fed(reader, data + b"data: [DONE]\n\n", []) == data + b"data: [DONE]\n\n"
    assert reader.facts().tool_names == ["look"]
    assert reader.num_output_tokens == 2


def test_an_error_in_a_stream_passes_and_completes_it() -> None:
    data = event({"error": {"message": "out of cheese"}}) + b"data: [DONE]\n\n"
    reader = StreamedReply(wants_usage=False)
    assert fed(reader, data, [3, 9]) == data
    assert reader.is_complete
    assert reader.facts().num_prompt_tokens is None


def test_a_whole_reply_is_complete_once_it_is_json() -> None:
    reader = WholeReply()
    answer = {
        "choices": [{"message": {"content": "a", "tool_calls": [{"function": {"name": "f"}}]}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    data = json.dumps(answer).encode()
    assert reader.feed(data[:9]) + reader.feed(data[9:]) == data
    assert not reader.is_complete
    reader.end()
    assert reader.facts().tool_names == ["f"]
    assert reader.num_output_tokens == 2
    broken = WholeReply()
    broken.feed(data[:9])
    broken.end()
    assert not broken.is_complete


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"stop": "x"},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"stream_options": {"continuous_usage_stats": True}},
        {"add_generation_prompt": False},
    ],
)
def test_replies_that_must_be_whole_are_not_gone_on_with(fields: dict[str, Any]) -> None:
    asked = {"messages": [{"role": "user", "content": "a"}], "stream": True}
    plain = {"tools": [], "response_format": {"type": "text"}, "n": 1, "stop": None}
    for more, can in ((fields, False), (plain, True)):
        call = read(ChatApi(), json.dumps({**asked, **more}).encode())
        reader = call.engine_call().reader
        reader.feed(stream_of(["half"], usage=False, done=False))
        assert (call.continuation(reader) is not None) == can


def test_a_reply_that_reasoned_is_not_gone_on_with() -> None:
    call = read(ChatApi(), b'{"messages": [{"role": "user"}], "stream": true}')
    reader = call.engine_call().reader
    reader.feed(event({"id": "x", "choices": [choice(delta={"role": "assistant", "content": ""})]}))
    assert call.continuation(reader) is not None
    reader.feed(event({"id": "x", "choices": [choice(delta={"reasoning": "hm"})]}))
    assert call.continuation(reader) is None


def test_a_continuation_asks_for_what_is_left() -> None:
    asked = {"messages": [{"role": "user", "content": "a"}], "stream": True, "max_tokens": 9}
    call = read(ChatApi(), json.dumps({**asked, "min_tokens": 2}).encode())
    first = call.engine_call()
    assert json.loads(first.body)["stream_options"] == {"include_usage": True}
    first.reader.feed(stream_of(["one ", "two ", "three"], usage=False, done=False))
    second = call.continuation(first.reader)
    assert second is not None
    body = json.loads(second.body)
    assert body["messages"][-1] == {"role": "assistant", "content": "one two three"}
    assert (body["max_tokens"], body["min_tokens"]) == (6, 0)
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


def test_prompts_of_every_form_are_cut_into_pieces_that_stay_the_same_as_they_grow() -> None:
    def digests(prompt: object) -> list[bytes]:
        body = json.dumps({"prompt": prompt}).encode()
        return [piece.digest for piece in read(CompletionsApi(), body).prompt().pieces]

    for short, long in (("a" * 3000, "a" * 3000 + "b"), ([1] * 600, [1] * 600 + [2])):
        assert digests(short)[:-1] == digests(long)[: len(digests(short)) - 1]
        assert digests([short]) == digests(short)
    assert digests(["a", "b"]) == digests(None) == []
    with pytest.raises(InvalidRequestError, match="JSON object"):
        read(ChatApi(), b"3")
    with pytest.raises(InvalidRequestError, match="not JSON"):
        read(ChatApi(), b"{")
    odd = {"messages": [{"role": 3, "content": [{"type": "image_url", "image_url": {}}, 5]}]}
    assert len(read(ChatApi(), json.dumps(odd).encode()).prompt().pieces) == 1
    assert read(ChatApi(), b'{"messages": 3}').prompt().pieces == ()
