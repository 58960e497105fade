"""Reads the replies of ``/v1/messages`` as they pass.

Of a stream only the events that begin and end something are parsed on the way; deltas are counted,
by their names, and their text is put together only when somebody wants to know it.
"""

from __future__ import annotations

import re
from typing import Any

from agent_runtime.engine_call import ReplyFacts
from agent_runtime.gateway.dialects.call_arguments import parsed_arguments
from agent_runtime.gateway.relay.message_prompts import chat_messages
from agent_runtime.gateway.relay.passing_events import (
    Unheard,
    WholeEvents,
    data_of_all,
    parsed,
)

# A line of data holds no line feed, so no text of a reply looks like these.
_SPEAKS_OF_MORE = re.compile(rb"^event: ?(?:message_|content_block_start|error)", re.MULTILINE)
_DELTA = re.compile(rb"^event: ?content_block_delta", re.MULTILINE)

_GROWING = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Kinds of deltas, and the member that each brings more of."""


class MessageUsage:
    """What a message told of its tokens."""

    __slots__ = ("num_cached", "num_output", "num_prompt")

    def __init__(self) -> None:
        self.num_prompt: int | None = None
        self.num_cached: int | None = None
        self.num_output: int | None = None

    def take(self, usage: object) -> None:
        """Take in a ``usage`` object; what is not in it stays as it was."""
        if not isinstance(usage, dict):
            return
        cached, created = usage.get("cache_read_input_tokens"), 0
        if isinstance(cached, int):
            self.num_cached = cached
            created = usage.get("cache_creation_input_tokens") or 0
        if usage.get("input_tokens") or cached:
            self.num_prompt = int(usage.get("input_tokens") or 0) + int(cached or 0) + created
        if isinstance(usage.get("output_tokens"), int):
            self.num_output = usage["output_tokens"]


class StreamedMessage:
    """A message in server-sent events; all of them pass."""

    def __init__(self) -> None:
        self._cutter = WholeEvents()
        self._unheard = Unheard()
        self._blocks: dict[int, dict[str, Any]] = {}
        self._usage = MessageUsage()
        self._num_deltas = 0
        self._tools: list[str] = []
        self._stop_reason: str | None = None
        self._is_complete = False

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far: one a delta, until the usage tells."""
        return self._num_deltas if self._stop_reason is None else self._usage.num_output or 0

    @property
    def is_complete(self) -> bool:
        """Whether ``message_stop`` has come, or an error."""
        return self._is_complete

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; return the events that they complete.

        Raises:
            WireFormatError: An event of more than 64 MiB.
        """
        events = self._cutter.take(data)
        if events:
            self._num_deltas += sum(1 for _ in _DELTA.finditer(events))
            if _SPEAKS_OF_MORE.search(events) is not None:
                for event in data_of_all(events):
                    self._take(event)
            if self._unheard.add(events):
                self._hear()
        return events

    def end(self) -> bytes:
        """Take in that the engine closed the reply; half an event is not passed on."""
        return b""

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        return ReplyFacts(
            num_prompt_tokens=self._usage.num_prompt,
            num_cached_tokens=self._usage.num_cached,
            num_output_tokens=self.num_output_tokens,
            finish_reason=self._stop_reason,
            tool_names=self._tools,
        )

    def message(self) -> dict[str, Any] | None:
        """Return what was said so far."""
        self._hear()
        return _as_chat([self._blocks[index] for index in sorted(self._blocks)])

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "message_start":
                self._usage.take((event.get("message") or {}).get("usage"))
            case "content_block_start":
                block = event.get("content_block") or {}
                if block.get("type") == "tool_use":
                    self._tools.append(str(block.get("name")))
            case "message_delta":
                self._usage.take(event.get("usage"))
                self._stop_reason = str((event.get("delta") or {}).get("stop_reason"))
            case "message_stop" | "error":
                self._is_complete = True
            case _:
                pass

    def _hear(self) -> None:
        for event in self._unheard.taken_out():
            index = event.get("index")
            if not isinstance(index, int):
                continue
            if event.get("type") == "content_block_start":
                self._blocks[index] = dict(event.get("content_block") or {})
            elif event.get("type") == "content_block_delta" and index in self._blocks:
                delta, block = event.get("delta") or {}, self._blocks[index]
                name = _GROWING.get(str(delta.get("type")))
                if name is not None:
                    block[name] = str(block.get(name) or "") + str(delta.get(name) or "")


class WholeMessage:
    """A message in one piece of JSON."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._message: dict[str, Any] | None = None
        self._usage = MessageUsage()

    @property
    def num_output_tokens(self) -> int:
        """Output tokens, known at the end."""
        return self._usage.num_output or 0

    @property
    def is_complete(self) -> bool:
        """Whether all has come."""
        return self._message is not None

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; all are passed on."""
        self._data.append(data)
        return data

    def end(self) -> bytes:
        """Take in that this was all."""
        self._message = parsed(b"".join(self._data))
        self._usage.take((self._message or {}).get("usage"))
        return b""

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        message = self._message or {}
        tools = [str(b.get("name")) for b in _blocks(message) if b.get("type") == "tool_use"]
        return ReplyFacts(
            num_prompt_tokens=self._usage.num_prompt,
            num_cached_tokens=self._usage.num_cached,
            num_output_tokens=self.num_output_tokens,
            finish_reason=message.get("stop_reason"),
            tool_names=tools,
        )

    def message(self) -> dict[str, Any] | None:
        """Return what was said."""
        return _as_chat(_blocks(self._message or {}))


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [block for block in message.get("content") or () if isinstance(block, dict)]


def _as_chat(blocks: list[dict[str, Any]]) -> dict[str, Any] | None:
    for block in blocks:
        if "partial_json" in block:
            block["input"] = parsed_arguments(block.pop("partial_json"))
    messages = chat_messages([{"role": "assistant", "content": blocks}])
    return messages[0] if len(messages) == 1 else None
