"""Items of the responses API as a conversation in the form of chat completions.

What a model said in one turn is several items there, a message and calls, and one message here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from agent_runtime.gateway.neutral_request import wrong
from agent_runtime.prompts.chat_prompt import content_text

ROLES = frozenset({"user", "assistant", "system", "developer"})
CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})

REFERENCE = "item_reference"


class ReadItems:
    """Puts a conversation together item by item.

    Args:
        referred: Looks up an item that is only named; raises for one that is not known.

    Attributes:
        messages: So far.
    """

    def __init__(self, referred: Callable[[str], dict[str, Any]]) -> None:
        self.messages: list[dict[str, Any]] = []
        self._referred = referred
        self._said: dict[str, Any] | None = None  # the assistant's message that calls may join

    def take(self, items: Sequence[dict[str, Any]]) -> None:
        """Take items in order.

        Raises:
            InvalidRequestError: One can't be read; names it.
        """
        for index, item in enumerate(items):
            self._take(item, f"input[{index}]")

    def _take(self, item: dict[str, Any], place: str) -> None:
        kind = _kind(item)
        if not isinstance(kind, str):
            raise wrong(f"{place}.type", "expected text")
        if kind == REFERENCE:
            if not isinstance(item.get("id"), str):
                raise wrong(place, "an item has a type or a role; a reference has an id")
            item = self._referred(item["id"])
            kind = item["type"]
        if kind == "reasoning":
            return  # the model is not shown what it thought in turns before
        if kind == "message":
            self._take_message(item, place)
        elif kind in CALLS:
            self._take_call(item, CALLS[kind], place)
        elif kind in OUTPUTS:
            self._take_output(item, place)
        else:  # what tools at the provider did: it counts as text
            self._append({"role": "assistant", "content": json.dumps(item, sort_keys=True)})

    def _take_message(self, item: dict[str, Any], place: str) -> None:
        role = item.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise wrong(f"{place}.role", f"expected one of {', '.join(sorted(ROLES))}")
        content = content_text(item.get("content"), f"{place}.content")
        self._append({"role": role, "content": content})
        if role == "assistant":
            self._said = self.messages[-1]

    def _take_call(self, item: dict[str, Any], arguments: str, place: str) -> None:
        name, call_id, given = item.get("name"), item.get("call_id"), item.get(arguments)
        if not isinstance(name, str) or not isinstance(call_id, str) or not isinstance(given, str):
            raise wrong(place, f"a call has a call_id, a name and {arguments} as text")
        if self._said is None:
            self._append({"role": "assistant", "content": None})
            self._said = self.messages[-1]
        function = {"name": name, "arguments": given}
        call = {"id": call_id, "type": "function", "function": function}
        self._said.setdefault("tool_calls", []).append(call)

    def _take_output(self, item: dict[str, Any], place: str) -> None:
        call_id = item.get("call_id")
        if not isinstance(call_id, str):
            raise wrong(f"{place}.call_id", "say whose output this is")
        content = content_text(item.get("output"), f"{place}.output")
        self._append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _append(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self._said = None


def referenced_item(item: dict[str, Any]) -> str | None:
    """Return the id of the item that is meant by one; None where it says everything itself."""
    item_id = item.get("id")
    return item_id if _kind(item) == REFERENCE and isinstance(item_id, str) else None


def _kind(item: dict[str, Any]) -> object:
    return item.get("type") or ("message" if "role" in item else REFERENCE)
