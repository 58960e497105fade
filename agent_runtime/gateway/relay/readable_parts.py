"""Parts of content that are no text, told apart by what they are."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any


def readable_part(part: object) -> dict[str, Any]:
    """Return a part as text: an image, a sound or whatever else by a digest of it."""
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return part
    digest = blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=16).hexdigest()
    return {"type": "text", "text": digest}


def readable_parts(parts: list[Any]) -> list[dict[str, Any]]:
    """Return parts as text; those that are no parts, by one digest of all of them."""
    if not all(isinstance(part, dict) for part in parts):
        return [readable_part(parts)]
    return [readable_part(part) for part in parts]


def readable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message all of whose parts are text."""
    content, role = message.get("content"), message.get("role")
    if isinstance(role, str) and (content is None or isinstance(content, str)):
        return message
    if content is not None and not isinstance(content, str):
        content = readable_parts(content if isinstance(content, list) else [content])
    return {**message, "role": str(role), "content": content}
