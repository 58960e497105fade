"""Does a value satisfy a schema? The JSON schema keywords of draft 2020-12, within an effort.

Not read: ``format`` (an annotation), ``unevaluatedProperties``, ``unevaluatedItems`` and
``$dynamicRef``.
"""

from __future__ import annotations

from typing import Any

from agent_runtime.json_sampling.json_values import TYPES, canonical, is_of_type
from agent_runtime.json_sampling.sampling_errors import SchemaError
from agent_runtime.json_sampling.schema_document import (
    Schema,
    SchemaDocument,
    as_count,
    as_members,
    as_names,
    as_number,
    as_schema,
    as_schemas,
)

MAX_DEPTH = 150
"""Of schemas inside each other while a value is checked; beyond it a reference goes in circles."""


def satisfies(
    value: object, schema: Schema, document: SchemaDocument, place: str, depth: int = 0
) -> bool:
    """Say whether ``value`` is valid.

    Raises:
        SchemaError: The schema is wrong; names the place.
        EffortError: It would take too long to find out.
    """
    document.spend(place)
    if depth > MAX_DEPTH:
        raise SchemaError("references go in circles, or too deep", place)
    if isinstance(schema, bool):
        return schema
    check = _Check(schema, document, place, depth)
    return (
        check.kind(value)
        and check.size(value)
        and (not isinstance(value, dict) or check.members(value))
        and (not isinstance(value, list) or check.items(value))
        and check.combined(value)
    )


class _Check:
    """The keywords of one schema object."""

    def __init__(
        self, schema: dict[str, Any], document: SchemaDocument, place: str, depth: int
    ) -> None:
        self._schema, self._document = schema, document
        self._place, self._depth = place, depth

    def kind(self, value: object) -> bool:
        """Check ``type``, ``enum`` and ``const``."""
        schema = self._schema
        if "type" in schema and not any(
            is_of_type(value, name) for name in types_of(schema, self._place)
        ):
            return False
        if "const" in schema and canonical(schema["const"]) != canonical(value):
            return False
        if "enum" not in schema:
            return True
        if not isinstance(schema["enum"], list):
            raise SchemaError("expected a list", f"{self._place}.enum")
        self._document.spend(self._place, len(schema["enum"]))
        mine = canonical(value)
        return any(canonical(allowed) == mine for allowed in schema["enum"])

    def size(self, value: object) -> bool:
        """Check bounds of numbers, lengths and counts, and patterns."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(value)
        if isinstance(value, str):
            return self._counted(len(value), "minLength", "maxLength") and self._matches(value)
        if isinstance(value, list):
            return self._counted(len(value), "minItems", "maxItems")
        if isinstance(value, dict):
            return self._counted(len(value), "minProperties", "maxProperties")
        return True

    def _matches(self, value: str) -> bool:
        if "pattern" not in self._schema:
            return True
        place = f"{self._place}.pattern"
        self._document.spend(place, len(value))
        return self._document.pattern(self._schema["pattern"], place).found_in(value)

    def _number(self, value: float) -> bool:
        schema, place = self._schema, self._place

        def bound(name: str) -> float | None:
            return as_number(schema[name], f"{place}.{name}") if name in schema else None

        low, above = bound("minimum"), bound("exclusiveMinimum")
        high, below = bound("maximum"), bound("exclusiveMaximum")
        step = bound("multipleOf")
        return (
            (low is None or value >= low)
            and (above is None or value > above)
            and (high is None or value <= high)
            and (below is None or value < below)
            and (step is None or is_multiple(value, step, f"{place}.multipleOf"))
        )

    def _counted(self, count: int, least: str, most: str) -> bool:
        schema, place = self._schema, self._place
        if least in schema and count < as_count(schema[least], f"{place}.{least}"):
            return False
        return most not in schema or count <= as_count(schema[most], f"{place}.{most}")

    def members(self, value: dict[str, Any]) -> bool:
        """Check what is said about an object's members."""
        schema, place = self._schema, self._place
        if "required" in schema and not all(
            name in value for name in as_names(schema["required"], f"{place}.required")
        ):
            return False
        if "propertyNames" in schema and not all(
            self._valid(name, as_schema(schema["propertyNames"], place), "propertyNames")
            for name in value
        ):
            return False
        if not self._dependents(value):
            return False
        if not all(
            self._valid(member, governing, f"properties.{name}")
            for name, member in value.items()
            for governing in member_schemas(schema, name, self._document, place)
        ):
            return False
        dependent = schema.get("dependentSchemas", {})
        return all(
            name not in value or self._valid(value, needed, f"dependentSchemas.{name}")
            for name, needed in as_members(dependent, f"{place}.dependentSchemas").items()
        )

    def _dependents(self, value: dict[str, Any]) -> bool:
        place = f"{self._place}.dependentRequired"
        dependent = self._schema.get("dependentRequired", {})
        if not isinstance(dependent, dict):
            raise SchemaError("expected an object of lists of names", place)
        return all(
            other in value
            for name, needed in dependent.items()
            if name in value
            for other in as_names(needed, f"{place}.{name}")
        )

    def items(self, value: list[Any]) -> bool:
        """Check what is said about an array's items."""
        schema, place = self._schema, self._place
        if schema.get("uniqueItems") is True and len({canonical(v) for v in value}) < len(value):
            return False
        for index, item in enumerate(value):
            governing = item_schema(schema, index, place)
            if governing is not True and not self._valid(item, governing, f"items[{index}]"):
                return False
        if "contains" not in schema:
            return True
        wanted = as_schema(schema["contains"], f"{place}.contains")
        found = sum(self._valid(item, wanted, "contains") for item in value)
        least = as_count(schema.get("minContains", 1), f"{place}.minContains")
        most = as_count(schema.get("maxContains", len(value)), f"{place}.maxContains")
        return least <= found <= most

    def combined(self, value: object) -> bool:
        """Check ``$ref`` and the keywords that combine schemas."""
        schema, place = self._schema, self._place
        if "$ref" in schema:
            target = self._document.resolve(schema["$ref"], f"{place}.$ref")
            if not self._valid(value, target, "$ref"):
                return False
        if "not" in schema and self._valid(value, as_schema(schema["not"], place), "not"):
            return False
        return (
            ("allOf" not in schema or all(self._each(value, "allOf")))
            and ("anyOf" not in schema or any(self._each(value, "anyOf")))
            and ("oneOf" not in schema or sum(self._each(value, "oneOf")) == 1)
            and ("if" not in schema or self._conditional(value))
        )

    def _conditional(self, value: object) -> bool:
        schema, place = self._schema, self._place
        branch = "then" if self._valid(value, as_schema(schema["if"], place), "if") else "else"
        return branch not in schema or self._valid(value, as_schema(schema[branch], place), branch)

    def _each(self, value: object, name: str) -> list[bool]:
        branches = as_schemas(self._schema[name], f"{self._place}.{name}")
        return [self._valid(value, one, f"{name}[{at}]") for at, one in enumerate(branches)]

    def _valid(self, value: object, schema: Schema, step: str) -> bool:
        place = f"{self._place}.{step}"
        return satisfies(value, schema, self._document, place, self._depth + 1)


def types_of(schema: dict[str, Any], place: str) -> list[str]:
    """Return the types that ``type`` names.

    Raises:
        SchemaError: One of them does not exist.
    """
    named = schema["type"]
    names = named if isinstance(named, list) else [named]
    for name in names:
        if name not in TYPES:
            raise SchemaError(f"expected one of {', '.join(TYPES)}", f"{place}.type")
    return names


def is_multiple(value: float, step: float, place: str) -> bool:
    """Say whether ``value`` is a multiple of ``step``, in floating point where one of them is.

    Raises:
        SchemaError: ``step`` is not above 0.
    """
    if step <= 0:
        raise SchemaError("expected a number > 0", place)
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        quotient = value / step
    except OverflowError:  # a whole number that no float holds
        return False
    return abs(quotient) < float("inf") and int(quotient) == quotient


def item_schema(schema: dict[str, Any], index: int, place: str) -> Schema:
    """Return what governs an array's item; drafts before 2020 had a list in ``items``."""
    rest = schema.get("items", True)
    prefix = schema.get("prefixItems", [])
    if isinstance(rest, list):
        prefix, rest = rest, schema.get("additionalItems", True)
    if not isinstance(prefix, list):
        raise SchemaError("expected a list of schemas", f"{place}.prefixItems")
    return as_schema(prefix[index] if index < len(prefix) else rest, f"{place}.items")


def member_schemas(
    schema: dict[str, Any], name: str, document: SchemaDocument, place: str
) -> list[Schema]:
    """Return what governs an object's member of this name."""
    properties = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    if not isinstance(properties, dict) or not isinstance(patterns, dict):
        raise SchemaError("expected objects of schemas", f"{place}.properties")
    governing = []
    if name in properties:
        governing.append(as_schema(properties[name], f"{place}.properties.{name}"))
    for pattern, member in patterns.items():
        if document.pattern(pattern, f"{place}.patternProperties").found_in(name):
            governing.append(as_schema(member, f"{place}.patternProperties.{pattern}"))
    if not governing:
        additional = schema.get("additionalProperties", True)
        governing.append(as_schema(additional, f"{place}.additionalProperties"))
    return governing
