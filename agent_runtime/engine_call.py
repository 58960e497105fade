"""A model call as a real engine gets it, and how its reply is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from scheduler.events import GapHint

WHITE_SPACE = b" \t\n\r"
"""JSON's."""


class ReplyFacts(msgspec.Struct, frozen=True):
    """What a reply has told so far.

    Attributes:
        num_prompt_tokens: As the engine counted, or None until it says.
        num_cached_tokens: Of the prompt, found in the engine's KV; or None until it says.
        num_output_tokens: Exact once the engine says, before that one a chunk.
        finish_reason: Of the first choice, or None until it ends.
        tool_names: Of the tools it calls, in order.
    """

    num_prompt_tokens: int | None
    num_cached_tokens: int | None
    num_output_tokens: int
    finish_reason: str | None
    tool_names: Sequence[str]


class ReplyReader(Protocol):
    """Reads a reply as it passes; one for every API, and for whole and streamed replies.

    It is fed all bytes of a reply, in pieces that may end anywhere.
    """

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the reply has ended as it should, with success or an error of the engine's."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; return those to pass on: whole events, without what nobody asked for."""
        ...

    def end(self) -> bytes:
        """Take in that the engine closed the reply; return what is still to be passed on."""
        ...

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        ...

    def message(self) -> dict[str, Any] | None:
        """Return what was said so far as a message of chat completions, as it will come back.

        None where there is none, or more than one.
        """
        ...


class EngineCall(msgspec.Struct, frozen=True):
    """One HTTP request to an engine.

    Attributes:
        path: Where it is posted.
        body: JSON.
        reader: Fresh, or one that goes on where another engine stopped.
        headers: To pass on.
        gap_after: Returns what the session does once the reply is complete.
        has_priority: Whether the caller set a priority of its own.
        takes_members: Whether the engine takes the session and the priority in the body; else they
            are in headers.
    """

    path: str
    body: bytes
    reader: ReplyReader
    headers: Mapping[str, str]
    gap_after: Callable[[ReplyFacts], GapHint]
    has_priority: bool = False
    takes_members: bool = True


def with_members(body: bytes, members: bytes) -> bytes:
    r"""Return a JSON object with more members at its end; the rest stays as it is, byte by byte.

    Where a name is there already, the last one counts in Python's JSON, and so in vLLM.

    Args:
        body: A JSON object.
        members: ``b'"a":1,"b":2'``, or nothing.
    """
    if not members:
        return body
    end = _last_of(body, len(body))  # the closing brace
    last = _last_of(body, end)
    comma = b"" if body[last : last + 1] == b"{" else b","
    return b"".join((memoryview(body)[: last + 1], comma, members, b"}"))


def _last_of(body: bytes, end: int) -> int:
    """Return where the last byte before ``end`` is that is no white space; without copies."""
    while body[end - 1] in WHITE_SPACE:
        end -= 1
    return end - 1
