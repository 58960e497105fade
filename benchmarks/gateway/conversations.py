"""Agents' requests of a given size: conversations that grow at their end, every one its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from agent_runtime.json_sampling.vocabulary import WORDS
from benchmarks.gateway.instant_servers import MODEL

TURN_BYTES = 300
"""What a turn adds."""
CALL_BYTES = 350
"""Of a tool call and its result, beside what the tool says."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a session's first request is like.

    Attributes:
        num_bytes: Its body has, about.
        num_calls: Tool calls that it is made of; 0 for one long message.
    """

    num_bytes: int
    num_calls: int = 0

    @override
    def __str__(self) -> str:
        calls = f" of {self.num_calls} calls" if self.num_calls else ""
        return f"{self.num_bytes // 1000} KB{calls}"


CONVERSATIONS = (
    Conversation(4_000),
    Conversation(64_000),
    Conversation(64_000, num_calls=16),
    Conversation(500_000),
    Conversation(500_000, num_calls=130),
)


def turns(
    session: str, first: Conversation, num_turns: int, *, max_tokens: int = 16, stream: bool = False
) -> Iterator[bytes]:
    """Yield the requests of one session, HTTP and all."""
    rng = np.random.default_rng([*session.encode()])
    system = {"role": "system", "content": "You are a careful engineer. " * 20}
    messages: list[dict[str, Any]] = [system, *_before(rng, first)]
    for _ in range(num_turns):
        body = json.dumps(
            {
                "model": MODEL,
                "messages": messages,
                "max_tokens": max_tokens,
                "stream": stream,
                "session_id": session,
            }
        ).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nX-Session-ID: {session}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body
        messages.append({"role": "assistant", "content": "Done."})
        messages.append({"role": "user", "content": _text(rng, TURN_BYTES)})


def _before(rng: np.random.Generator, first: Conversation) -> list[dict[str, Any]]:
    num_bytes, num_calls = max(100, first.num_bytes - 900), first.num_calls
    if not num_calls:
        return [{"role": "user", "content": _text(rng, num_bytes)}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Mend the test that fails."}]
    for number in range(num_calls):
        function = {"name": "read_file", "arguments": json.dumps({"path": f"src/{number}.py"})}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        said = _text(rng, max(10, num_bytes // num_calls - CALL_BYTES))
        messages.append({"role": "assistant", "content": "I look.", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})
    return messages


def _text(rng: np.random.Generator, num_bytes: int) -> str:
    words = [WORDS[pick] for pick in rng.integers(len(WORDS), size=num_bytes // 4).tolist()]
    return " ".join(words)[:num_bytes]
