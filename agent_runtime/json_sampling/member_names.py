"""Which members an object gets: the required ones, some of the others, and more if need be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent_runtime.json_sampling.effective_schema import EffectiveSchema, all_of
from agent_runtime.json_sampling.pattern_nodes import LengthError
from agent_runtime.json_sampling.sampling_errors import UnsatisfiableError
from agent_runtime.json_sampling.schema_check import member_schemas
from agent_runtime.json_sampling.schema_document import (
    Schema,
    SchemaDocument,
    as_members,
    as_names,
    as_schema,
)
from agent_runtime.json_sampling.schema_height import DEEPEST, SchemaHeights
from agent_runtime.json_sampling.text_sampling import COST_OF_A_FAILURE, words

OPTIONAL_SHARE = 0.5
"""How often a member that may be left out is there."""
MAX_EXTRA_MEMBERS = 3
"""Of a mapping, beyond those it must have."""


class MemberNames:
    """Chooses names for the objects of one document.

    Args:
        document: Counts the effort.
        heights: Tell which members would never end.
        rng: Draws.
        name: Draws a string of a schema, for ``propertyNames``.
    """

    def __init__(
        self,
        document: SchemaDocument,
        heights: SchemaHeights,
        rng: np.random.Generator,
        name: Callable[[Schema, str], str],
    ) -> None:
        self._document, self._heights, self._rng, self._name = document, heights, rng, name

    def chosen(self, flat: EffectiveSchema, place: str, *, sparing: bool) -> list[str]:
        """Return the names of one object's members, in the order of their declaration.

        Args:
            flat: What applies to the object.
            place: For errors.
            sparing: Whether to leave out whatever may be left out.

        Raises:
            UnsatisfiableError: The counts asked for are not possible.
            SchemaError: A keyword is wrong.
        """
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
            if room and not sparing and self._rng.random() < OPTIONAL_SHARE:
                kept |= self._with_dependents(flat, name, place, kept, most)
        for name in optional:
            if len(kept) < least:
                kept |= {name}
        names = [name for name in declared if name in kept]
        names += [name for name in required if name not in declared]
        return self._with_extra_names(flat, names, (least, most), place, sparing=sparing)

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
        bounds: tuple[int, int | None],
        place: str,
        *,
        sparing: bool,
    ) -> list[str]:
        """Add names that are not declared, if they are needed or the object is a mapping."""
        least, most = bounds
        mapping = not any("properties" in part for part in flat.parts) and any(
            isinstance(part.get("additionalProperties"), dict) or "patternProperties" in part
            for part in flat.parts
        )
        target = least
        if mapping and not sparing:
            target = max(least, len(names) + 1 + int(self._rng.integers(MAX_EXTRA_MEMBERS)))
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
            schemas = [as_schema(naming, f"{place}.propertyNames") for naming in namings]
            return self._name(all_of([*schemas, {"type": "string"}]), f"{place}.propertyNames")
        patterns = [
            self._document.pattern(source, f"{place}.patternProperties")
            for part in flat.parts
            for source in as_members(part.get("patternProperties", {}), place)
        ]
        if patterns and num_tries % 2 == 0:
            try:
                return patterns[int(self._rng.integers(len(patterns)))].sample(self._rng)
            except LengthError as error:
                self._document.spend(place, COST_OF_A_FAILURE)
                raise UnsatisfiableError(str(error), f"{place}.patternProperties") from error
        text = words(self._rng, most=12).replace(" ", "_")
        return text if num_tries < 20 else f"{text}_{num_tries}"  # noqa: PLR2004
