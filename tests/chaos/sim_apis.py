"""What an engine of words is asked in each API, and the bytes of what it says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.word_kv import chat_words

TOOL_WORD = "use-tool"
"""Whoever says so, with a tool offered, is answered by a call of it."""
DEFAULT_WORDS = 5


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        turn: What the prompt's last word of that kind is.
        words: Of the prompt.
        said: What is answered.
        calls_tool: Whether a tool is called instead.
        streams: Whether it is wanted as it comes.
        response_id: Of the answer, where it has one.
    """

    turn: str
    words: list[str]
    said: list[str]
    calls_tool: bool
    streams: bool
    response_id: str = ""


def chat_asked(body: dict[str, Any]) -> Asked:
    """Read a chat completion."""
    messages = body["messages"]
    words, first = chat_words(messages), 0
    if body.get("continue_final_message"):
        first = len(messages[-1]["content"].split())
    else:
        words.append("<assistant>")
    turn = next(word for word in reversed(words) if word.startswith("turn:"))
    last = messages[-1]
    if body.get("tools") and last["role"] == "user" and TOOL_WORD in last["content"]:
        return Asked(turn, words, ["<call>"], calls_tool=True, streams=False)
    limit = body.get("max_tokens") or DEFAULT_WORDS
    said = [f"w{first + index}" for index in range(limit)]
    return Asked(turn, words, said, calls_tool=False, streams=bool(body.get("stream")))


def response_asked(body: dict[str, Any], before: Sequence[Any], response_id: str) -> Asked:
    """Read a response; ``before`` is what the one that it goes on with ended with."""
    messages = item_messages([*before, *body["input"]])
    words = [*chat_words(messages), "<assistant>"]
    turn = next(word for word in reversed(words) if word.startswith("turn:"))
    said = [f"w{index}" for index in range(body["max_output_tokens"])]
    return Asked(turn, words, said, False, bool(body.get("stream")), response_id)


def item_messages(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return items as messages."""
    messages = []
    for item in items:
        content = item["content"]
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        messages.append({"role": item["role"], "content": text})
    return messages


def chat_answer(asked: Asked, num_cached: int) -> list[bytes]:
    """Return the chunks of a chat completion."""
    limit = len(asked.said)
    head = {"id": f"id-{asked.turn}", "object": "chat.completion.chunk", "created": 0}
    usage = {
        "prompt_tokens": len(asked.words),
        "completion_tokens": limit,
        "total_tokens": len(asked.words) + limit,
        "prompt_tokens_details": {"cached_tokens": num_cached},
    }
    if not asked.streams:
        message, reason = _message(asked)
        choice = {"index": 0, "message": message, "finish_reason": reason}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return [json.dumps(whole).encode()]
    chunks = [_event(head, [_choice({"role": "assistant", "content": ""})])]
    for index, word in enumerate(asked.said):
        last = index == limit - 1
        text = word if last else f"{word} "
        chunks.append(_event(head, [_choice({"content": text}, "length" if last else None)]))
    chunks.append(_event(head, [], usage) + b"data: [DONE]\n\n")
    return chunks


def response_answer(asked: Asked, num_cached: int) -> list[bytes]:
    """Return the chunks of a response."""
    begun = {"id": asked.response_id, "object": "response", "status": "in_progress", "output": []}
    part = {"type": "output_text", "text": " ".join(asked.said), "annotations": []}
    item = {
        "id": f"msg-{asked.response_id}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    usage = {
        "input_tokens": len(asked.words),
        "input_tokens_details": {"cached_tokens": num_cached},
        "output_tokens": len(asked.said),
        "total_tokens": len(asked.words) + len(asked.said),
    }
    whole = {**begun, "status": "completed", "output": [item], "usage": usage}
    if not asked.streams:
        return [json.dumps(whole).encode()]
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for index, word in enumerate(asked.said):
        text = word if index == len(asked.said) - 1 else f"{word} "
        events.append({"type": "response.output_text.delta", "delta": text, "item_id": item["id"]})
    events.append({"type": "response.completed", "response": whole})
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n".encode()
        for n, event in enumerate(events)
    ]


def _message(asked: Asked) -> tuple[dict[str, Any], str]:
    if not asked.calls_tool:
        return {"role": "assistant", "content": " ".join(asked.said)}, "length"
    function = {"name": "work", "arguments": json.dumps({"item": asked.turn})}
    call = {"id": f"call-{asked.turn}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(head: dict[str, Any], choices: Any, usage: dict[str, Any] | None = None) -> bytes:
    chunk = {**head, "choices": choices}
    if usage is not None:
        chunk["usage"] = usage
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
