"""The prompt of ``/v1/responses`` as a conversation of chat completions, whatever items it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.dialects.response_items import ReadItems
from agent_runtime.gateway.relay.readable_parts import readable_parts


def chat_messages(items: Sequence[object]) -> list[dict[str, Any]]:
    """Return a conversation; nothing where it can't be read, since the engine will refuse it."""
    read = ReadItems(_reference)
    try:
        read.take([_readable(item) for item in items if isinstance(item, dict)])
    except InvalidRequestError:
        return []
    return read.messages


def input_items(given: object) -> list[dict[str, Any]]:
    """Return a request's ``input`` as items."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def tool_definitions(tools: object) -> list[dict[str, Any]]:
    """Return tools as the model sees them: functions the same as in chat completions."""
    definitions: list[dict[str, Any]] = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and tool.get("type") == "function":
            function = {name: value for name, value in tool.items() if name != "type"}
            definitions.append({"type": "function", "function": function})
        elif isinstance(tool, dict):
            definitions.append(tool)
    return definitions


def _reference(item_id: str) -> dict[str, Any]:
    """Stand in for an item that only the engine knows."""
    return {"type": "item_reference_kept_by_the_engine", "id": item_id}


def _readable(item: dict[str, Any]) -> dict[str, Any]:
    changed = dict(item)
    for name in ("content", "output"):
        parts = item.get(name)
        if isinstance(parts, list):
            changed[name] = readable_parts(parts)
    return changed
