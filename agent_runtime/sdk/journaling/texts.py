"""Texts as journals can keep them, in the form in which they are compared."""

from __future__ import annotations

from agent_runtime.chat_client import encoded_json


def as_json(value: object) -> str:
    """Return JSON."""
    return encoded_json(value).decode()


def as_text(text: str) -> str:
    """Return a text with half a surrogate pair, which UTF-8 can't carry, as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
