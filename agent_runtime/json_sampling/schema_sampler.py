"""A value that satisfies a JSON schema, drawn from a passed generator.

Covers types, ``enum``, ``const``, ``$ref`` (recursive too), ``anyOf``, ``oneOf``, ``allOf``,
``not``, ``if``, bounds, patterns, formats, arrays and objects with all their keywords of draft
2020-12 but ``unevaluated*`` and ``$dynamicRef``. Where branches must be guessed, a value is drawn
again until it checks; recursion ends in the shallowest branch; ``max_effort`` bounds the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent_runtime.json_sampling.effective_schema import EffectiveSchema, effective_schema
from agent_runtime.json_sampling.json_values import Json, canonical
from agent_runtime.json_sampling.number_sampling import sample_number
from agent_runtime.json_sampling.sampling_errors import EffortError, UnsatisfiableError
from agent_runtime.json_sampling.schema_check import item_schema, member_schemas, satisfies
from agent_runtime.json_sampling.schema_document import (
    MAX_EFFORT,
    Schema,
    SchemaDocument,
    as_members,
    as_names,
    as_schema,
)
from agent_runtime.json_sampling.schema_height import SchemaHeights
from agent_runtime.json_sampling.text_sampling import sample_text, words

DEEP, DEEPEST = 5, 40
"""From here on only what must be is written; from there on nothing."""
OPTIONAL_SHARE = 0.5
MAX_EXTRA = 3
"""Items and members beyond the fewest."""
_NUM_TRIES = 24
_ANY = ("string", "string", "integer", "boolean", "null", "number", "object", "array")


def sample_json(
    schema: Schema,
    rng: np.random.Generator,
    *,
    place: str = "schema",
    max_effort: int = MAX_EFFORT,
) -> Json:
    """Draw a value.

    Args:
        schema: The root: what references are relative to.
        rng: Draws; the same state gives the same value.
        place: What the schema is called in errors.
        max_effort: Schema nodes that may be visited.

    Raises:
        SchemaError: The schema is wrong, not supported, or no value was found; names the place.
    """
    sampler = _Sampler(schema, rng, max_effort)
    try:
        return sampler.value(schema, place, depth=0)
    except EffortError as error:
        if sampler.last_failure is not None:  # tried again and again: this says why
            raise sampler.last_failure from error
        raise


class _Sampler:
    """Draws the values of one document."""

    def __init__(self, root: Schema, rng: np.random.Generator, max_effort: int) -> None:
        self._document = SchemaDocument(root, max_effort)
        self._heights = SchemaHeights(self._document)
        self._rng = rng
        self.last_failure: UnsatisfiableError | None = None

    def value(self, schema: Schema, place: str, depth: int) -> Json:
        """Draw a value of one schema, again if a branch leads nowhere."""
        if depth > DEEPEST:
            raise UnsatisfiableError("recursion does not end", place)
        failure = UnsatisfiableError("found no value that satisfies it", place)
        for _ in range(_NUM_TRIES):
            try:
                flat = self._flat(schema, place, depth)
                value = self._draw(flat, place, depth)
            except UnsatisfiableError as error:
                failure = self.last_failure = error
                continue
            if not flat.uncertain or satisfies(value, schema, self._document, place):
                return value
        raise failure

    def _flat(self, schema: Schema, place: str, depth: int) -> EffectiveSchema:
        def choose(branches: Sequence[Schema]) -> Schema:
            if depth >= DEEP:
                return min(branches, key=self._heights.of)
            picked = branches[self._below(len(branches))]
            return (
                picked
                if self._heights.of(picked) < DEEPEST
                else min(branches, key=self._heights.of)
            )

        return effective_schema(schema, self._document, choose, place)

    def _below(self, limit: int) -> int:
        return int(self._rng.integers(limit)) if limit > 1 else 0

    def _draw(self, flat: EffectiveSchema, place: str, depth: int) -> Json:
        if flat.values is not None:
            return self._listed_value(flat, place)
        types = flat.implied_types() or (list(_ANY) if flat.uncertain else ["string"])
        if depth >= DEEP:
            shallow = [name for name in types if name not in {"array", "object"}]
            types = shallow or types
        kind = types[self._below(len(types))]
        if kind == "array":
            return self._array(flat, place, depth)
        if kind == "object":
            return self._object(flat, place, depth)
        return self._scalar(kind, flat, place)

    def _scalar(self, kind: str, flat: EffectiveSchema, place: str) -> Json:
        if kind == "null":
            return None
        if kind == "boolean":
            return bool(self._below(2))
        if kind != "string":
            return sample_number(flat, self._rng, place, whole=kind == "integer")
        text = sample_text(flat, self._document, self._rng, place)
        self._document.spend(place, len(text) // 20)
        return text

    def _listed_value(self, flat: EffectiveSchema, place: str) -> Json:
        values = flat.values or []
        start = self._below(len(values))
        everything: Schema = {"allOf": [_own_keywords(part) for part in flat.parts]}
        for value in (*values[start:], *values[:start]):
            if satisfies(value, everything, self._document, place):
                return value
        raise UnsatisfiableError("none of the values listed is allowed", f"{place}.enum")

    def _array(self, flat: EffectiveSchema, place: str, depth: int) -> list[Any]:
        least, most = flat.largest("minItems", 0, place), flat.smallest("maxItems", place)
        unique = any(part.get("uniqueItems") is True for part in flat.parts)
        wanted = [part["contains"] for part in flat.parts if "contains" in part]
        num_wanted = flat.largest("minContains", 1, place) if wanted else 0
        least = max(least, num_wanted)
        if most is not None and least > most:
            raise UnsatisfiableError("more items are needed than allowed", f"{place}.minItems")
        self._document.spend(place, least)
        target = least if depth >= DEEP else least + self._below(MAX_EXTRA + 1)
        target = target if most is None else min(target, most)
        items: list[Any] = []
        seen: set[str] = set()
        while len(items) < target:
            index = len(items)
            schemas: list[Schema] = [item_schema(part, index, place) for part in flat.parts]
            if index >= target - num_wanted:
                schemas += [as_schema(one, f"{place}.contains") for one in wanted]
            try:
                item = self._item(schemas, seen if unique else None, f"{place}[{index}]", depth)
            except UnsatisfiableError:
                if index < least:
                    raise
                break
            items.append(item)
            if unique:
                seen.add(canonical(item))
        return items

    def _item(self, schemas: list[Schema], seen: set[str] | None, place: str, depth: int) -> Json:
        schema = _all_of(schemas)
        for _ in range(1 if seen is None else 2 * _NUM_TRIES):
            item = self.value(schema, place, depth + 1)
            if seen is None or canonical(item) not in seen:
                return item
        raise UnsatisfiableError("found no more items that differ", place)

    def _object(self, flat: EffectiveSchema, place: str, depth: int) -> dict[str, Any]:
        names = self._member_names(flat, place, depth)
        members: dict[str, Any] = {}
        for name in names:
            governing = [
                one
                for part in flat.parts
                for one in member_schemas(part, name, self._document, place)
            ]
            members[name] = self.value(_all_of(governing), f"{place}.{name}", depth + 1)
        return members

    def _member_names(self, flat: EffectiveSchema, place: str, depth: int) -> list[str]:
        declared: dict[str, None] = {}
        for part in flat.parts:
            declared.update(dict.fromkeys(as_members(part.get("properties", {}), place)))
        self._document.spend(place, len(declared) // 4)
        required = self._required(flat, place)
        least = flat.largest("minProperties", 0, place)
        most = flat.smallest("maxProperties", place)
        if most is not None and max(least, len(required)) > most:
            raise UnsatisfiableError("more members are needed than allowed", place)
        optional = [n for n in declared if n not in required and self._may_be(flat, n, place)]
        kept = set(required)
        for name in optional:
            room = most is None or len(kept) < most
            if room and depth < DEEP and self._rng.random() < OPTIONAL_SHARE:
                kept |= self._with_dependents(flat, name, place, kept, most)
        for name in optional:
            if len(kept) < least:
                kept |= {name}
        names = [name for name in declared if name in kept]
        names += [name for name in required if name not in declared]
        return self._with_extra_names(flat, names, least, most, place, depth)

    def _required(self, flat: EffectiveSchema, place: str) -> dict[str, None]:
        required: dict[str, None] = {}
        for part in flat.parts:
            required.update(dict.fromkeys(as_names(part.get("required", []), f"{place}.required")))
        waiting = list(required)
        while waiting:
            for other in self._dependents(flat, waiting.pop(), place):
                if other not in required:
                    required[other] = None
                    waiting.append(other)
        return required

    def _dependents(self, flat: EffectiveSchema, name: str, place: str) -> list[str]:
        found: list[str] = []
        for part in flat.parts:
            dependent = part.get("dependentRequired", {})
            if isinstance(dependent, dict) and name in dependent:
                found += as_names(dependent[name], f"{place}.dependentRequired.{name}")
        return found

    def _with_dependents(
        self, flat: EffectiveSchema, name: str, place: str, kept: set[str], most: int | None
    ) -> set[str]:
        new, waiting = {name}, [name]
        while waiting:
            more = [n for n in self._dependents(flat, waiting.pop(), place) if n not in new | kept]
            new.update(more)
            waiting += more
        return new if most is None or len(kept | new) <= most else set()

    def _may_be(self, flat: EffectiveSchema, name: str, place: str) -> bool:
        return all(
            self._heights.of(one) < DEEPEST
            for part in flat.parts
            for one in member_schemas(part, name, self._document, place)
        )

    def _with_extra_names(
        self,
        flat: EffectiveSchema,
        names: list[str],
        least: int,
        most: int | None,
        place: str,
        depth: int,
    ) -> list[str]:
        """Add names that are not declared, if they are needed or the object is a mapping."""
        mapping = not any("properties" in part for part in flat.parts) and any(
            isinstance(part.get("additionalProperties"), dict) or "patternProperties" in part
            for part in flat.parts
        )
        target = least
        if mapping and depth < DEEP:
            target = max(least, len(names) + 1 + self._below(MAX_EXTRA))
            target = target if most is None else min(target, most)
        self._document.spend(place, target)
        num_tries = 0
        while len(names) < target:
            name = self._extra_name(flat, place, num_tries)
            num_tries += 1
            if name not in names and self._may_be(flat, name, place):
                names.append(name)
            elif num_tries > 20 + 4 * target:
                if len(names) >= least:
                    break
                raise UnsatisfiableError("found no more names for members", place)
        return names

    def _extra_name(self, flat: EffectiveSchema, place: str, num_tries: int) -> str:
        namings = [part["propertyNames"] for part in flat.parts if "propertyNames" in part]
        if namings:
            name = self.value(
                _all_of(
                    [as_schema(n, f"{place}.propertyNames") for n in namings] + [{"type": "string"}]
                ),
                f"{place}.propertyNames",
                DEEP,
            )
            return str(name)
        patterns = [
            self._document.pattern(source, f"{place}.patternProperties")
            for part in flat.parts
            for source in part.get("patternProperties", {})
        ]
        if patterns and num_tries % 2 == 0:
            return patterns[self._below(len(patterns))].sample(self._rng)
        text = words(self._rng, most=12).replace(" ", "_")
        return text if num_tries < 20 else f"{text}_{num_tries}"  # noqa: PLR2004


def _all_of(schemas: list[Schema]) -> Schema:
    telling = [schema for schema in schemas if schema is not True]
    if len(telling) == 1:
        return telling[0]
    return {"allOf": telling} if telling else True


def _own_keywords(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part without what was chosen from: that is checked as a whole, afterwards."""
    return {k: v for k, v in part.items() if k not in {"$ref", "allOf", "anyOf", "oneOf", "if"}}
