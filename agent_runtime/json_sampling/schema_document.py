"""A schema with what its parts refer to, and the work that may be spent on it."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import unquote

from agent_runtime.json_sampling.pattern_nodes import PatternError
from agent_runtime.json_sampling.regular_pattern import RegularPattern, parse_pattern
from agent_runtime.json_sampling.sampling_errors import EffortError, SchemaError

Schema: TypeAlias = dict[str, Any] | bool

MAX_EFFORT = 10_000
"""Schema nodes visited for one value; a value of 1,000 members takes about 3,000."""
MAX_CHARACTERS = 100_000
LARGEST = 10**300


class SchemaDocument:
    """Resolves references, parses patterns once, and counts the effort.

    Args:
        root: The whole schema.
        max_effort: Schema nodes that may be visited.

    Invariant: effort only grows; what is over the limit ends in ``EffortError``.
    """

    __slots__ = ("_effort", "_max_effort", "_patterns", "root")

    def __init__(self, root: Schema, max_effort: int = MAX_EFFORT) -> None:
        self.root = root
        self._max_effort = max_effort
        self._effort = 0
        self._patterns: dict[str, RegularPattern] = {}

    def spend(self, place: str, effort: int = 1) -> None:
        """Count some effort.

        Raises:
            EffortError: It was too much.
        """
        self._effort += effort
        if self._effort > self._max_effort:
            raise EffortError("asks for a longer value than the emulated model writes", place)

    def resolve(self, reference: object, place: str) -> Schema:
        """Return what a ``$ref`` means: ``#``, or a JSON pointer or an anchor in this document.

        Raises:
            SchemaError: It leads nowhere, or out of the document.
        """
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError("only references inside the schema are followed", place)
        pointer = unquote(reference[1:])
        if pointer and not pointer.startswith("/"):
            raise SchemaError(f"{reference!r}: write it as a JSON pointer (#/$defs/...)", place)
        found: object = self.root
        for raw in pointer.split("/")[1:]:
            self.spend(place)
            part = raw.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise SchemaError(f"{reference!r} leads nowhere", place)
        return as_schema(found, place)

    def pattern(self, source: object, place: str) -> RegularPattern:
        """Return the parsed pattern.

        Raises:
            SchemaError: It can't be parsed.
        """
        if not isinstance(source, str):
            raise SchemaError("expected a regular expression", place)
        parsed = self._patterns.get(source)
        if parsed is None:
            self.spend(place, len(source))
            try:
                parsed = self._patterns[source] = parse_pattern(source)
            except PatternError as error:
                raise SchemaError(str(error), place) from error
        return parsed


def as_schema(value: object, place: str) -> Schema:
    """Return ``value`` if it can be a schema.

    Raises:
        SchemaError: It is neither an object nor a boolean.
    """
    if isinstance(value, dict | bool):
        return value
    raise SchemaError("expected a schema: an object or a boolean", place)


def as_schemas(value: object, place: str) -> list[Schema]:
    """Return a non-empty list of schemas.

    Raises:
        SchemaError: It is none.
    """
    if not isinstance(value, list) or not value:
        raise SchemaError("expected a list of schemas", place)
    return [as_schema(item, f"{place}[{index}]") for index, item in enumerate(value)]


def as_members(value: object, place: str) -> dict[str, Schema]:
    """Return schemas by name.

    Raises:
        SchemaError: It is no object of schemas.
    """
    if not isinstance(value, dict):
        raise SchemaError("expected an object of schemas", place)
    return {name: as_schema(member, f"{place}.{name}") for name, member in value.items()}


def as_count(value: object, place: str) -> int:
    """Return a natural number; JSON may write it as 3.0.

    Raises:
        SchemaError: It is none.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SchemaError("expected a whole number >= 0", place)
    return value


def as_number(value: object, place: str) -> int | float:
    """Return a finite number.

    Raises:
        SchemaError: It is none.
    """
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not -LARGEST <= value <= LARGEST:  # type: ignore[operator]
        raise SchemaError("expected a number that floats can hold", place)
    return value  # type: ignore[return-value]


def as_names(value: object, place: str) -> list[str]:
    """Return a list of property names.

    Raises:
        SchemaError: It is none.
    """
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError("expected a list of names", place)
    return value
