"""Anthropic's messages, made of blocks, as a conversation in the form of chat completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.dialects.messages_wire import CacheControl, MessageParam, TextBlock
from agent_runtime.gateway.neutral_request import CacheBreakpoint, wrong
from agent_runtime.loose_json import a_text

LIFETIME_S = {"5m": 300.0, "1h": 3600.0}
ATTRIBUTION = "x-anthropic-billing-header:"
"""Claude Code's first system block: another one with every request, and nothing for the model."""

PASSED_OVER = frozenset({"thinking", "redacted_thinking"})
"""The model is not shown what it thought in turns before."""


class ReadMessages:
    """Puts a conversation together block by block.

    Results of tools are messages of their own, as in chat completions. What a user's message has
    beside results (Claude Code's reminders) belongs to the last of them: it is no new task.

    Attributes:
        messages: So far.
        last_breakpoint: The last place up to which the caller wants the prompt cached.
        lease_s: The longest lifetime that was asked for, or None.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.last_breakpoint: CacheBreakpoint | None = None
        self.lease_s: float | None = None

    def tools_breakpoint(self, control: CacheControl) -> None:
        """Note a breakpoint after the tool definitions."""
        self._note(-1, None, control)

    def breakpoint_here(self, control: CacheControl) -> None:
        """Note a breakpoint at the end of the prompt so far."""
        self._note(len(self.messages) - 1, None, control)

    def system(self, given: str | Sequence[TextBlock] | None) -> None:
        """Take the system prompt; every block is a message."""
        if isinstance(given, str):
            self.messages.append({"role": "system", "content": given})
            return
        for block in given or ():
            if block.text.startswith(ATTRIBUTION):
                continue
            self.messages.append({"role": "system", "content": block.text})
            if block.cache_control is not None:
                self.breakpoint_here(block.cache_control)

    def message(self, index: int, given: MessageParam) -> None:
        """Take a message.

        Raises:
            InvalidRequestError: A block that can't be read; names it.
        """
        if isinstance(given.content, str):
            self.messages.append({"role": given.role, "content": given.content})
            return
        current: dict[str, Any] | None = None
        for number, block in enumerate(given.content):
            place = f"messages[{index}].content[{number}]"
            kind = a_text(block.get("type"))
            if kind == "tool_result":
                current = _tool_message(block, place)
                self.messages.append(current)
            elif kind not in PASSED_OVER:
                if current is None:
                    current = {"role": given.role, "content": ""}
                    self.messages.append(current)
                _add_block(current, block, place)
            if block.get("cache_control") is not None and self.messages:
                self._note_block(current, block, place)
        if current is None:
            self.messages.append({"role": given.role, "content": ""})

    def _note_block(
        self, current: dict[str, Any] | None, block: dict[str, Any], place: str
    ) -> None:
        try:
            control = CacheControl.model_validate(block["cache_control"])
        except ValidationError as error:
            field = f"{place}.cache_control"
            raise wrong(field, 'expected {"type": "ephemeral", "ttl": "5m" or "1h"}') from error
        text_only = current is not None and not current.get("tool_calls")
        num_chars = len(current["content"]) if current is not None and text_only else None
        self._note(len(self.messages) - 1, num_chars, control)

    def _note(self, message: int, num_chars: int | None, control: CacheControl) -> None:
        lifetime_s = LIFETIME_S[control.ttl]
        self.last_breakpoint = CacheBreakpoint(message, num_chars, lifetime_s)
        self.lease_s = max(self.lease_s or 0.0, lifetime_s)


def _add_block(message: dict[str, Any], block: dict[str, Any], place: str) -> None:
    if block.get("type") == "tool_use":
        message.setdefault("tool_calls", []).append(_tool_call(block, place))
        return
    message["content"] += block_text(block, place)


def _tool_call(block: dict[str, Any], place: str) -> dict[str, Any]:
    name, call_id = block.get("name"), block.get("id")
    if not isinstance(name, str) or not isinstance(call_id, str):
        raise wrong(place, "a tool_use block has an id, a name and an input")
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _tool_message(block: dict[str, Any], place: str) -> dict[str, Any]:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise wrong(f"{place}.tool_use_id", "say whose result this is")
    content = block.get("content")
    if isinstance(content, list):
        parts = enumerate(content)
        text = "".join(block_text(part, f"{place}.content[{n}]") for n, part in parts)
    elif content is None or isinstance(content, str):
        text = content or ""
    else:
        raise wrong(f"{place}.content", "expected text, or a list of blocks")
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def block_text(block: object, place: str) -> str:
    """Return what a block says.

    Raises:
        InvalidRequestError: It is not text; names it.
    """
    if not isinstance(block, dict):
        raise wrong(place, "expected a block: an object with a type")
    if isinstance(block.get("text"), str):
        return str(block["text"])
    kind = block.get("type")
    if not isinstance(kind, str) or kind in {"image", "document", "container_upload"}:
        raise InvalidRequestError(
            f"{place}: the emulated model reads text only; found a block of type {kind!r}",
            param=place,
        )
    # What tools at the provider said: search results and the like count as text.
    return json.dumps(block, ensure_ascii=False, sort_keys=True)
