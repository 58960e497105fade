"""Reads the replies of ``/v1/messages`` as they pass.

Of a stream only the events that begin and end something are parsed on the way; deltas are counted,
by their names, and their text is put together only when somebody wants to know it.
"""

from __future__ import annotations

import re
from typing import Any

from typing_extensions import override

from agent_runtime.engine_call import ReplyFacts
from agent_runtime.gateway.dialects.call_arguments import parsed_arguments
from agent_runtime.gateway.relay.message_prompts import chat_messages
from agent_runtime.gateway.relay.passing_events import PassedEvents, Unheard, WholeAnswer
from agent_runtime.loose_json import a_count, a_text, an_object, objects

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
        cached, created = a_count(usage.get("cache_read_input_tokens")), 0
        if cached is not None:
            self.num_cached = cached
            created = a_count(usage.get("cache_creation_input_tokens")) or 0
        new, output = a_count(usage.get("input_tokens")), a_count(usage.get("output_tokens"))
        if new or cached:
            self.num_prompt = (new or 0) + (cached or 0) + created
        if output is not None:
            self.num_output = output


class StreamedMessage(PassedEvents):
    """A message in server-sent events; all of them pass."""

    def __init__(self) -> None:
        super().__init__(_DELTA, _SPEAKS_OF_MORE)
        self._unheard = Unheard()
        self._blocks: dict[int, dict[str, Any]] = {}
        self._usage = MessageUsage()
        self._tools: list[str] = []
        self._stop_reason: str | None = None

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far: one a delta, until the usage tells."""
        return self._num_deltas if self._stop_reason is None else self._usage.num_output or 0

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

    @override
    def _take(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "message_start":
                self._usage.take(an_object(event.get("message")).get("usage"))
            case "content_block_start":
                block = an_object(event.get("content_block"))
                if block.get("type") == "tool_use":
                    self._tools.append(str(block.get("name")))
            case "message_delta":
                self._usage.take(event.get("usage"))
                self._stop_reason = str(an_object(event.get("delta")).get("stop_reason"))
            case "message_stop" | "error":
                self._is_complete = True
            case _:
                pass

    @override
    def _passed(self, events: bytes) -> None:
        if self._unheard.add(events):
            self._hear()

    def _hear(self) -> None:
        for event in self._unheard.taken_out():
            index = event.get("index")
            if not isinstance(index, int):
                continue
            if event.get("type") == "content_block_start":
                self._blocks[index] = dict(an_object(event.get("content_block")))
            elif event.get("type") == "content_block_delta" and index in self._blocks:
                delta, block = an_object(event.get("delta")), self._blocks[index]
                name = _GROWING.get(str(delta.get("type")))
                if name is not None:
                    block[name] = str(block.get(name) or "") + str(delta.get(name) or "")


class WholeMessage(WholeAnswer):
    """A message in one piece of JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._usage = MessageUsage()

    @property
    def num_output_tokens(self) -> int:
        """Output tokens, known at the end."""
        return self._usage.num_output or 0

    @override
    def end(self) -> bytes:
        """Take in that this was all."""
        super().end()
        self._usage.take((self.answer or {}).get("usage"))
        return b""

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        message = self.answer or {}
        tools = [str(b.get("name")) for b in _blocks(message) if b.get("type") == "tool_use"]
        return ReplyFacts(
            num_prompt_tokens=self._usage.num_prompt,
            num_cached_tokens=self._usage.num_cached,
            num_output_tokens=self.num_output_tokens,
            finish_reason=a_text(message.get("stop_reason")),
            tool_names=tools,
        )

    def message(self) -> dict[str, Any] | None:
        """Return what was said."""
        return _as_chat(_blocks(self.answer or {}))


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(message.get("content"))


def _as_chat(blocks: list[dict[str, Any]]) -> dict[str, Any] | None:
    for block in blocks:
        if "partial_json" in block:
            block["input"] = parsed_arguments(block.pop("partial_json"))
    messages = chat_messages([{"role": "assistant", "content": blocks}])
    return messages[0] if len(messages) == 1 else None
