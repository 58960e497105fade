"""A schema made flat: references followed, branches chosen, all that applies side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agent_runtime.json_sampling.json_values import TYPES
from agent_runtime.json_sampling.sampling_errors import UnsatisfiableError
from agent_runtime.json_sampling.schema_check import types_of
from agent_runtime.json_sampling.schema_document import (
    Schema,
    SchemaDocument,
    as_count,
    as_number,
    as_schema,
    as_schemas,
)

MAX_HOPS = 200
"""Schemas that apply to one value; references that go in circles pass it."""

Chooser: TypeAlias = Callable[[Sequence[Schema]], Schema]
"""Chooses one of several branches."""

_IMPLIED_TYPES = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "contains", "uniqueItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_UNCERTAIN = ("oneOf", "not", "if", "enum", "const", "contains", "dependentSchemas")
"""Keywords that merging does not satisfy by itself: the value is checked."""


@dataclass(slots=True)
class EffectiveSchema:
    """What applies to one value.

    Attributes:
        parts: Every schema object that applies, without those it refers to.
        types: What the value may be; None if nothing is said.
        values: The only values allowed, or None.
        uncertain: Whether a value made from the parts may still be invalid.
    """

    parts: list[dict[str, Any]] = field(default_factory=list)
    types: frozenset[str] | None = None
    values: list[Any] | None = None
    uncertain: bool = False

    def implied_types(self) -> list[str]:
        """Return the types a value can have, by what the schema speaks of if it names none."""
        if self.types is not None:
            return sorted(self.types, key=TYPES.index)
        return [
            name
            for name, keywords in _IMPLIED_TYPES.items()
            if any(keyword in part for part in self.parts for keyword in keywords)
        ]

    def largest(self, name: str, default: int, place: str) -> int:
        """Return the largest of the counts under ``name``, e.g. ``minItems``."""
        counts = [as_count(p[name], f"{place}.{name}") for p in self.parts if name in p]
        return max(counts, default=default)

    def smallest(self, name: str, place: str) -> int | None:
        """Return the smallest of the counts under ``name``, e.g. ``maxItems``."""
        counts = [as_count(p[name], f"{place}.{name}") for p in self.parts if name in p]
        return min(counts, default=None)

    def numbers(self, name: str, place: str) -> list[int | float]:
        """Return the numbers under ``name``, e.g. ``minimum``."""
        return [as_number(p[name], f"{place}.{name}") for p in self.parts if name in p]


def effective_schema(
    schema: Schema, document: SchemaDocument, choose: Chooser, place: str
) -> EffectiveSchema:
    """Flatten a schema.

    Args:
        schema: Of one value.
        document: What it is part of.
        choose: Picks a branch of ``anyOf`` and ``oneOf``, and for ``if`` what to satisfy.
        place: For errors.

    Raises:
        UnsatisfiableError: Nothing can satisfy it.
        SchemaError: It is wrong.
    """
    flat = EffectiveSchema()
    waiting = [schema]
    num_hops = 0
    while waiting:
        document.spend(place)
        num_hops += 1
        if num_hops > MAX_HOPS:
            raise UnsatisfiableError("references go in circles, or too many apply", place)
        part = waiting.pop()
        if part is False:
            raise UnsatisfiableError("nothing is allowed here", place)
        if part is not True:
            _take_in(flat, part, place)
            waiting += _what_else_applies(part, document, choose, place)
    return flat


def _take_in(flat: EffectiveSchema, part: dict[str, Any], place: str) -> None:
    flat.parts.append(part)
    flat.uncertain |= any(keyword in part for keyword in _UNCERTAIN)
    if "type" in part:
        flat.types = _common_types(flat.types, types_of(part, place))
        if not flat.types:
            raise UnsatisfiableError("two types are asked for at once", f"{place}.type")
    for keyword in ("const", "enum"):
        if keyword in part and flat.values is None:
            values = [part["const"]] if keyword == "const" else part["enum"]
            if not isinstance(values, list) or not values:
                raise UnsatisfiableError("expected a list of values", f"{place}.enum")
            flat.values = values


def _common_types(known: frozenset[str] | None, named: list[str]) -> frozenset[str]:
    here = frozenset(named)
    if known is None:
        return here
    common = known & here
    if ("integer" in known and "number" in here) or ("integer" in here and "number" in known):
        common |= {"integer"}
    return common


def _what_else_applies(
    part: dict[str, Any], document: SchemaDocument, choose: Chooser, place: str
) -> list[Schema]:
    more: list[Schema] = []
    if "$ref" in part:
        more.append(document.resolve(part["$ref"], f"{place}.$ref"))
    if "allOf" in part:
        more += as_schemas(part["allOf"], f"{place}.allOf")
    for keyword in ("anyOf", "oneOf"):
        if keyword in part:
            more.append(choose(as_schemas(part[keyword], f"{place}.{keyword}")))
    if "if" in part:
        condition = as_schema(part["if"], f"{place}.if")
        then = as_schema(part.get("then", True), f"{place}.then")
        otherwise = as_schema(part.get("else", True), f"{place}.else")
        more.append(choose([{"allOf": [condition, then]}, otherwise]))
    return more


def all_of(schemas: list[Schema]) -> Schema:
    """Return one schema for several that apply at once."""
    telling = [schema for schema in schemas if schema is not True]
    if len(telling) == 1:
        return telling[0]
    return {"allOf": telling} if telling else True
