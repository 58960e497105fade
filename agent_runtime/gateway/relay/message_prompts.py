"""The prompt of ``/v1/messages`` as a conversation of chat completions, whatever blocks it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.dialects.message_blocks import LIFETIME_S, ReadMessages
from agent_runtime.gateway.dialects.messages_wire import MessageParam, TextBlock
from agent_runtime.gateway.relay.readable_parts import readable_part
from agent_runtime.loose_json import a_text

TEXTLESS = frozenset({"image", "document", "container_upload"})


def chat_messages(given: Sequence[object], system: object = None) -> list[dict[str, Any]]:
    """Return a conversation; nothing where it can't be read, since the engine will refuse it."""
    read = ReadMessages()
    try:
        read.system(_system(system))
        for index, message in enumerate(given):
            if not isinstance(message, dict):
                return []
            content = _content(message.get("content"))
            # Not validated: the engine does that, and knows more kinds of blocks.
            fields: dict[str, Any] = {"role": str(message.get("role")), "content": content}
            param = MessageParam.model_construct(None, **fields)
            read.message(index, param)
    except InvalidRequestError:
        return []
    return read.messages


def tool_definitions(tools: object) -> list[dict[str, Any]]:
    """Return tools as the model sees them, the same as in chat completions."""
    definitions = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            function = {"name": tool.get("name")}
            if tool.get("description") is not None:
                function["description"] = tool["description"]
            if tool.get("input_schema") is not None:
                function["parameters"] = tool["input_schema"]
            definitions.append({"type": "function", "function": function})
    return definitions


def cache_lease_s(fields: Mapping[str, Any]) -> float | None:
    """Return the longest lifetime that ``cache_control`` asks for, None where it is nowhere."""
    longest = _lifetime_s(fields)
    for name in ("system", "tools", "messages"):
        for part in _parts(fields.get(name)):
            longest = max(longest, _lifetime_s(part))
            for block in _parts(part.get("content")):
                longest = max(longest, _lifetime_s(block))
    return longest or None


def _parts(value: object) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _lifetime_s(part: Mapping[str, Any]) -> float:
    control = part.get("cache_control")
    if not isinstance(control, dict):
        return 0.0
    return LIFETIME_S.get(str(control.get("ttl") or "5m"), 0.0)


def _system(system: object) -> str | list[TextBlock] | None:
    if system is None or isinstance(system, str):
        return system
    return [
        TextBlock.model_construct(type="text", text=str(readable_part(part)["text"]))
        for part in _parts(system)
    ]


def _content(content: object) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [_readable_block(block) for block in _parts(content)]


def _readable_block(block: dict[str, Any]) -> dict[str, Any]:
    if a_text(block.get("type")) in TEXTLESS:
        return readable_part(block)
    if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
        parts = [_readable_block(part) for part in _parts(block["content"])]
        block = {**block, "content": parts}
    if "cache_control" in block:  # it is no part of the prompt, and is looked for elsewhere
        block = {name: value for name, value in block.items() if name != "cache_control"}
    return block
