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

from agent_runtime.json_sampling.effective_schema import EffectiveSchema, all_of, effective_schema
from agent_runtime.json_sampling.json_values import Json, canonical
from agent_runtime.json_sampling.member_names import MemberNames
from agent_runtime.json_sampling.number_sampling import sample_number
from agent_runtime.json_sampling.sampling_errors import EffortError, UnsatisfiableError
from agent_runtime.json_sampling.schema_check import item_schema, member_schemas, satisfies
from agent_runtime.json_sampling.schema_document import (
    MAX_EFFORT,
    Schema,
    SchemaDocument,
    as_schema,
)
from agent_runtime.json_sampling.schema_height import DEEPEST, SchemaHeights
from agent_runtime.json_sampling.text_sampling import sample_text

DEEP = 5
"""From this depth on only what must be is written."""
MAX_EXTRA_ITEMS = 3
"""Beyond the fewest."""
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
        self._names = MemberNames(self._document, self._heights, rng, self._name)
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

    def _name(self, schema: Schema, place: str) -> str:
        return str(self.value(schema, place, DEEP))

    def _flat(self, schema: Schema, place: str, depth: int) -> EffectiveSchema:
        def choose(branches: Sequence[Schema]) -> Schema:
            if depth >= DEEP:
                return min(branches, key=self._heights.of)
            picked = branches[self._below(len(branches))]
            ends = self._heights.of(picked) < DEEPEST
            return picked if ends else min(branches, key=self._heights.of)

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
        target = least if depth >= DEEP else least + self._below(MAX_EXTRA_ITEMS + 1)
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
        schema = all_of(schemas)
        for _ in range(1 if seen is None else 2 * _NUM_TRIES):
            item = self.value(schema, place, depth + 1)
            if seen is None or canonical(item) not in seen:
                return item
        raise UnsatisfiableError("found no more items that differ", place)

    def _object(self, flat: EffectiveSchema, place: str, depth: int) -> dict[str, Any]:
        names = self._names.chosen(flat, place, sparing=depth >= DEEP)
        members: dict[str, Any] = {}
        for name in names:
            governing = [
                one
                for part in flat.parts
                for one in member_schemas(part, name, self._document, place)
            ]
            members[name] = self.value(all_of(governing), f"{place}.{name}", depth + 1)
        return members


def _own_keywords(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part without what was chosen from: that is checked as a whole, afterwards."""
    return {k: v for k, v in part.items() if k not in {"$ref", "allOf", "anyOf", "oneOf", "if"}}
