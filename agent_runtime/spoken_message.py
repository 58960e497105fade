"""The message that a stream of chunks adds up to, as a client would send it back."""

from __future__ import annotations

from typing import Any

from agent_runtime.loose_json import a_count, a_text, an_object, objects


class SpokenMessage:
    """Adds up the deltas of one choice."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def hear(self, chunk: dict[str, Any]) -> None:
        """Take in a chunk."""
        for choice in objects(chunk.get("choices")):
            delta = an_object(choice.get("delta"))
            if isinstance(delta.get("content"), str):
                self._content.append(delta["content"])
            for call in objects(delta.get("tool_calls")):
                self._hear_call(call)

    def message(self) -> dict[str, Any]:
        """Return the message so far."""
        content = "".join(self._content)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return message

    def _hear_call(self, delta: dict[str, Any]) -> None:
        call = self._calls.setdefault(
            a_count(delta.get("index")) or 0,
            {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        function = an_object(delta.get("function"))
        call["id"] = a_text(delta.get("id")) or call["id"]
        call["function"]["name"] += a_text(function.get("name")) or ""
        call["function"]["arguments"] += a_text(function.get("arguments")) or ""
