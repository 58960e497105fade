"""Messages and responses read as they pass, in vLLM 0.32's form and wherever the bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.engine_call import ReplyReader
from agent_runtime.gateway.relay.message_prompts import cache_lease_s
from agent_runtime.gateway.relay.message_replies import StreamedMessage, WholeMessage
from agent_runtime.gateway.relay.messages_api import MessagesApi
from agent_runtime.gateway.relay.relayed_call import read_call
from agent_runtime.gateway.relay.response_replies import StreamedResponse, WholeResponse
from agent_runtime.gateway.relay.responses_api import ResponsesApi
from agent_runtime.gateway.session_keys import Caller

NASTY = 'event: message_stop\n\nevent: response.completed\ndata: {"type":"error"}'
texts = st.lists(st.text(min_size=1) | st.just(NASTY), min_size=1, max_size=12)
cuts = st.lists(st.integers(0, 5000), max_size=10)


def event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def message_stream(said: list[str]) -> bytes:
    start = {"id": "m", "content": [], "usage": {"input_tokens": 0, "output_tokens": 0}}
    data = event("message_start", message=start)
    data += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for text in said:
        delta = {"type": "text_delta", "text": text}
        data += event("content_block_delta", index=0, delta=delta)
    data += event("content_block_stop", index=0)
    block = {"type": "tool_use", "id": "c", "name": "look_up", "input": {}}
    data += event("content_block_start", index=1, content_block=block)
    for part in ('{"city":', ' "Oslo"}'):
        delta = {"type": "input_json_delta", "partial_json": part}
        data += event("content_block_delta", index=1, delta=delta)
    data += event("content_block_stop", index=1)
    usage = {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 77}
    data += event("message_delta", delta={"stop_reason": "tool_use"}, usage=usage)
    return data + event("message_stop")


def response_object(said: list[str], **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": "".join(said), "annotations": []}
    usage = {"input_tokens": 10, "output_tokens": 77, "input_tokens_details": {"cached_tokens": 4}}
    call = {"type": "function_call", "name": "look_up", "call_id": "c", "arguments": "{}"}
    output = [
        {"type": "reasoning", "id": "r", "summary": [], "content": []},
        {"type": "message", "id": "m", "role": "assistant", "content": [part]},
        call,
    ]
    return {"id": "resp_1", "status": "completed", "output": output, "usage": usage, **more}


def response_stream(said: list[str]) -> bytes:
    head = {"id": "resp_1", "status": "in_progress", "output": []}
    data = event("response.created", sequence_number=0, response=head)
    data += event("response.in_progress", sequence_number=1, response=head)
    for number, text in enumerate(said, start=2):
        data += event("response.output_text.delta", sequence_number=number, delta=text)
    number = len(said) + 2
    return data + event(
        "response.completed", sequence_number=number, response=response_object(said)
    )


def fed(reader: ReplyReader, data: bytes, at: list[int]) -> bytes:
    edges = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    return b"".join([reader.feed(piece) for piece in pieces]) + reader.end()


@given(texts, cuts)
def test_a_streamed_message_passes_untouched_and_tells_what_it_was(
    said: list[str], at: list[int]
) -> None:
    data, reader = message_stream(said), StreamedMessage()
    assert fed(reader, data, at) == data
    facts = reader.facts()
    assert reader.is_complete
    assert (facts.num_prompt_tokens, facts.num_cached_tokens) == (10, 4)
    assert (facts.num_output_tokens, facts.finish_reason) == (77, "tool_use")
    assert facts.tool_names == ["look_up"]
    message = reader.message()
    assert message is not None
    assert message["content"] == "".join(said)
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}


@given(texts, st.integers(0, 3000))
def test_half_a_message_counts_its_deltas_and_is_not_complete(said: list[str], cut: int) -> None:
    data = message_stream(said)
    half = data[: min(cut, data.index(b"event: message_delta"))]
    reader = StreamedMessage()
    passed = reader.feed(half)
    assert half.startswith(passed)
    assert not reader.is_complete
    num_whole = sum(e.startswith(b"event: content_block_delta") for e in passed.split(b"\n\n"))
    assert reader.num_output_tokens == num_whole


@given(texts, cuts)
def test_a_streamed_response_passes_untouched_and_tells_what_it_was(
    said: list[str], at: list[int]
) -> None:
    data, reader = response_stream(said), StreamedResponse()
    assert fed(reader, data, at) == data
    facts = reader.facts()
    assert reader.is_complete
    assert reader.num_events == len(said) + 3
    assert (facts.num_prompt_tokens, facts.num_cached_tokens) == (10, 4)
    assert (facts.num_output_tokens, facts.finish_reason) == (77, "completed")
    assert facts.tool_names == ["look_up"]
    message = reader.message()
    assert message is not None
    assert message["content"] == "".join(said)


@given(texts, cuts)
def test_whole_answers_tell_the_same_as_streams(said: list[str], at: list[int]) -> None:
    usage = {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 77}
    text = {"type": "text", "text": "".join(said)}
    use = {"type": "tool_use", "id": "c", "name": "look_up", "input": {"city": "Oslo"}}
    answer = {"content": [text, use], "stop_reason": "tool_use", "usage": usage}
    pairs: list[tuple[ReplyReader, ReplyReader, bytes, Any]] = [
        (WholeMessage(), StreamedMessage(), message_stream(said), answer),
        (WholeResponse(), StreamedResponse(), response_stream(said), response_object(said)),
    ]
    for whole, streamed, stream, body in pairs:
        data = json.dumps(body).encode()
        assert fed(whole, data, at) == data
        streamed.feed(stream)
        assert whole.facts() == streamed.facts()
        assert whole.message() == streamed.message()


def test_an_error_of_the_engines_own_ends_a_stream() -> None:
    readers: list[ReplyReader] = [StreamedMessage(), StreamedResponse()]
    for reader in readers:
        reader.feed(event("error", error={"type": "internal_error", "message": "out"}))
        assert reader.is_complete
        assert reader.message() is None or reader.facts().num_output_tokens == 0


def test_the_longest_cache_lifetime_is_the_lease_wherever_it_stands() -> None:
    short, long = ({"type": "ephemeral", "ttl": ttl} for ttl in ("5m", "1h"))
    block: dict[str, Any] = {"type": "text", "text": "a", "cache_control": long}
    assert cache_lease_s({"messages": [{"role": "user", "content": [block]}]}) == 3600
    assert cache_lease_s({"system": [block], "cache_control": short}) == 3600
    assert cache_lease_s({"tools": [{"name": "t", "cache_control": short}]}) == 300
    assert cache_lease_s({"messages": [{"role": "user", "content": "a"}], "system": "b"}) is None


def test_prompts_that_cannot_be_read_are_left_to_the_engine() -> None:
    odd: list[Any] = [{"messages": 3}, {"messages": [3]}, {"system": [{}], "messages": None}]
    odd += [{"input": 3}, {"input": [{"type": "function_call"}]}, {"input": [{"role": 3}]}]
    for body in odd:
        for api in (MessagesApi(), ResponsesApi()):
            call = read_call(api, json.dumps(body).encode(), Caller({}), {})
            assert len(call.prompt().pieces) <= 1


def test_images_are_told_apart_by_what_they_are() -> None:
    def digests(source: str) -> list[bytes]:
        image = {"type": "image", "source": {"data": source}}
        content = [{"type": "tool_result", "tool_use_id": "c", "content": [image]}, image]
        body = {"messages": [{"role": "user", "content": content}]}
        call = read_call(MessagesApi(), json.dumps(body).encode(), Caller({}), {})
        return [piece.digest for piece in call.prompt().pieces]

    assert digests("a") == digests("a") != digests("b")
