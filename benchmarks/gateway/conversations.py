"""Agents' requests of a given size: conversations that grow at their end, every one its own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from agent_runtime.json_sampling.vocabulary import WORDS
from benchmarks.gateway.instant_servers import MODEL

TURN_BYTES = 300
"""What a turn adds."""


def turns(
    session: str, num_bytes: int, num_turns: int, *, max_tokens: int = 16, stream: bool = False
) -> Iterator[bytes]:
    """Yield the requests of one session, HTTP and all, the first about ``num_bytes`` long."""
    rng = np.random.default_rng([*session.encode()])
    system = {"role": "system", "content": "You are a careful engineer. " * 20}
    messages = [system, {"role": "user", "content": _text(rng, max(100, num_bytes - 900))}]
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


def _text(rng: np.random.Generator, num_bytes: int) -> str:
    words = [WORDS[pick] for pick in rng.integers(len(WORDS), size=num_bytes // 4).tolist()]
    return " ".join(words)[:num_bytes]
