"""What a load test reads of a streamed chunk; all else is passed over unparsed."""

from __future__ import annotations

from typing import Any

import msgspec


class CachedDetails(msgspec.Struct):
    """Of a prompt."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """So far, or in all."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedDetails | None = None


class Delta(msgspec.Struct):
    """What is new."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None

    @property
    def says_something(self) -> bool:
        """Whether it has any of the model's tokens as text."""
        return bool(self.content or self.reasoning or self.reasoning_content or self.tool_calls)

    @property
    def num_letters(self) -> int:
        """Of what is said and of what is thought."""
        return len(self.content or "") + len(self.reasoning or self.reasoning_content or "")


class Choice(msgspec.Struct):
    """One of the answers; only one is asked for."""

    delta: Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One event of a stream."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(Chunk)


def read_chunk(data: bytes) -> Chunk:
    """Parse an event's data.

    Raises:
        msgspec.DecodeError: It is no JSON, or not of a chunk's form.
    """
    return _DECODER.decode(data)
