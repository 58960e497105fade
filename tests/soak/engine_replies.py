"""What an engine of words says, in the four dialects: ``w0 w1 w2 ...``, streamed or whole."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.word_kv import chat_words

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"


@dataclass(frozen=True)
class Reply:
    """An answer that is known from the beginning.

    Attributes:
        path: Of the request.
        number: Its own, for its id.
        words: Of the prompt.
        said: What it says.
        num_cached: Words of the prompt that were in the KV.
    """

    path: str
    number: int
    words: Sequence[str]
    said: Sequence[str]
    num_cached: int

    @property
    def text(self) -> str:
        return " ".join(self.said)

    def whole(self) -> bytes:
        """Return it in one piece."""
        return json.dumps(_WHOLE[self.path](self)).encode()

    def events(self) -> list[bytes]:
        """Return its events: before the words, one a word, and after them."""
        return _EVENTS[self.path](self)


def words_of(path: str, asked: dict[str, Any]) -> list[str]:
    """Return a request's prompt."""
    if path in {CHAT, MESSAGES}:
        return chat_words(asked["messages"])
    if path == RESPONSES:
        given = asked["input"]
        return given.split() if isinstance(given, str) else chat_words(given)
    return str(asked["prompt"]).split()


def reply_to(path: str, asked: dict[str, Any], number: int, num_cached: int) -> Reply:
    """Return the answer to a request; one that goes on with half a reply begins there."""
    words = words_of(path, asked)
    first = 0
    if asked.get("continue_final_message"):
        first = len(asked["messages"][-1]["content"].split())
    elif path == COMPLETIONS:
        first = len(re.findall(r"w\d", asked["prompt"]))  # the first may touch what is before it
    most = asked.get("max_tokens") or asked.get("max_output_tokens") or 8
    said = [f"w{first + index}" for index in range(most)]
    return Reply(path, number, words, said, num_cached)


def _openai_usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": len(reply.words),
        "completion_tokens": len(reply.said),
        "total_tokens": len(reply.words) + len(reply.said),
        "prompt_tokens_details": {"cached_tokens": reply.num_cached},
    }


def _chat(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    return {"id": f"c{reply.number}", "choices": [choice], "usage": _openai_usage(reply)}


def _completion(reply: Reply) -> dict[str, Any]:
    choice = {"index": 0, "text": reply.text, "finish_reason": "length"}
    return {"id": f"c{reply.number}", "choices": [choice], "usage": _openai_usage(reply)}


def _message(reply: Reply) -> dict[str, Any]:
    usage = {
        "input_tokens": len(reply.words) - reply.num_cached,
        "cache_read_input_tokens": reply.num_cached,
        "output_tokens": len(reply.said),
    }
    content = [{"type": "text", "text": reply.text}]
    head = {"id": f"m{reply.number}", "type": "message", "role": "assistant", "model": "words"}
    return {**head, "content": content, "stop_reason": "max_tokens", "usage": usage}


def _response(reply: Reply, status: str = "completed") -> dict[str, Any]:
    text = {"type": "output_text", "text": reply.text, "annotations": []}
    item = {"type": "message", "id": "i", "role": "assistant", "content": [text]}
    usage = {
        "input_tokens": len(reply.words),
        "input_tokens_details": {"cached_tokens": reply.num_cached},
        "output_tokens": len(reply.said),
        "total_tokens": len(reply.words) + len(reply.said),
    }
    output = [item] if status == "completed" else []
    head = {"id": f"resp_{reply.number}", "object": "response", "status": status}
    return {**head, "output": output, "usage": usage if output else None}


_WHOLE = {CHAT: _chat, COMPLETIONS: _completion, MESSAGES: _message, RESPONSES: _response}


def _data(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _named(kind: str, **members: Any) -> bytes:
    return b"event: %b\n" % kind.encode() + _data({"type": kind, **members})


def _pieces(reply: Reply) -> list[str]:
    return [f"{word} " for word in reply.said[:-1]] + [reply.said[-1]]


def _chunks(reply: Reply) -> list[bytes]:
    is_chat = reply.path == CHAT
    head = {"id": f"c{reply.number}", "created": 1}
    events = []
    if is_chat:
        events = [_data({**head, "choices": [{"index": 0, "delta": {"role": "assistant"}}]})]
    last = len(reply.said) - 1
    for index, piece in enumerate(_pieces(reply)):
        said: dict[str, Any] = {"delta": {"content": piece}} if is_chat else {"text": piece}
        end = "length" if index == last else None
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": end}
        events.append(_data({**head, "choices": [choice]}))
    usage = _data({**head, "choices": [], "usage": _openai_usage(reply)})
    return [*events, usage + b"data: [DONE]\n\n"]


def _message_events(reply: Reply) -> list[bytes]:
    whole = _message(reply)
    block = {"type": "text", "text": ""}
    deltas = [
        _named("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        for piece in _pieces(reply)
    ]
    return [
        _named("message_start", message={**whole, "content": [], "stop_reason": None})
        + _named("content_block_start", index=0, content_block=block),
        *deltas,
        _named("content_block_stop", index=0)
        + _named("message_delta", delta={"stop_reason": "max_tokens"}, usage=whole["usage"])
        + _named("message_stop"),
    ]


def _response_events(reply: Reply) -> list[bytes]:
    begun = _response(reply, "in_progress")
    events = [_named("response.created", sequence_number=0, response=begun)]
    for number, piece in enumerate(_pieces(reply), start=1):
        place = {"item_id": "i", "output_index": 0, "content_index": 0}
        event = _named("response.output_text.delta", sequence_number=number, delta=piece, **place)
        events.append(event)
    number = len(events)
    end = _named("response.completed", sequence_number=number, response=_response(reply))
    return [*events, end]


_EVENTS = {
    CHAT: _chunks,
    COMPLETIONS: _chunks,
    MESSAGES: _message_events,
    RESPONSES: _response_events,
}
