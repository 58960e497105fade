"""What JSON schema means by types and by equality."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""What ``json.loads`` returns."""

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def is_of_type(value: object, name: str) -> bool:
    """Say whether a value has a JSON type; 1.0 is an integer."""
    return _IS_OF_TYPE[name](value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS_OF_TYPE: dict[str, Callable[[object], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and not (isinstance(value, float) and value % 1),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def canonical(value: object) -> str:
    """Return a text that equal JSON values share: 1 equals 1.0, but not true."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {name: _whole(member) for name, member in value.items()}
    return value
