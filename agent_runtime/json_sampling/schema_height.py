"""How deep the shallowest value of a schema is, to end recursive schemas soon."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from agent_runtime.json_sampling.sampling_errors import SchemaError
from agent_runtime.json_sampling.schema_document import Schema, SchemaDocument

MAX_NODES, MAX_ROUNDS = 4_000, 32
DEEPEST = 40
"""No value goes deeper."""


class SchemaHeights:
    """Heights of the schemas of one document: 0 for a scalar, inf if recursion never ends.

    A fixed point from above, over schemas in the order that puts what is referred to first; beyond
    the limits heights are too large, which only makes a branch less liked.
    """

    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._heights: dict[int, float] = {}
        self._order: list[dict[str, Any]] = []
        self._targets: dict[int, Schema] = {}
        self._alive: list[Schema] = []  # what is known by its id must not be freed

    def of(self, schema: Schema) -> float:
        """Return the height of a schema of the document."""
        if isinstance(schema, bool):
            return 0.0 if schema else math.inf
        if id(schema) not in self._heights:
            self._alive.append(schema)
            self._settle(schema)
        return self._heights[id(schema)]

    def _settle(self, schema: dict[str, Any]) -> None:
        self._visit(schema)
        for _ in range(MAX_ROUNDS):
            changed = False
            for node in self._order:
                height = self._height(node)
                changed |= height != self._heights[id(node)]
                self._heights[id(node)] = height
            if not changed:
                break

    def _visit(self, schema: dict[str, Any]) -> None:
        waiting: list[tuple[dict[str, Any], bool]] = [(schema, False)]
        while waiting:
            node, done = waiting.pop()
            if done:
                self._order.append(node)
            elif id(node) not in self._heights and len(self._heights) < MAX_NODES:
                self._heights[id(node)] = math.inf
                waiting.append((node, True))
                waiting += [(n, False) for n in self._parts(node) if isinstance(n, dict)]
        self._heights.setdefault(id(schema), math.inf)

    def _parts(self, node: dict[str, Any]) -> Iterator[Schema]:
        if (target := self._target(node)) is not None:
            yield target
        for keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
            branches = node.get(keyword)
            if isinstance(branches, list):
                yield from (b for b in branches if isinstance(b, dict | bool))
        if isinstance(node.get("items"), dict):
            yield node["items"]
        properties = node.get("properties")
        if isinstance(properties, dict):
            yield from (p for p in properties.values() if isinstance(p, dict | bool))

    def _target(self, node: dict[str, Any]) -> Schema | None:
        if "$ref" not in node:
            return None
        if id(node) not in self._targets:
            try:
                self._targets[id(node)] = self._document.resolve(node["$ref"], "")
            except SchemaError:  # told, with its place, by whoever samples it
                self._targets[id(node)] = False
        return self._targets[id(node)]

    def _known(self, schema: object) -> float:
        if isinstance(schema, dict):
            return self._heights.get(id(schema), math.inf)
        return math.inf if schema is False else 0.0

    def _height(self, node: dict[str, Any]) -> float:
        heights = [self._own(node)]
        if (target := self._target(node)) is not None:
            heights.append(self._known(target))
        heights += [self._known(part) for part in _listed(node, "allOf")]
        for keyword in ("anyOf", "oneOf"):
            if branches := _listed(node, keyword):
                heights.append(min(self._known(branch) for branch in branches))
        return max(heights)

    def _own(self, node: dict[str, Any]) -> float:
        kinds = node.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if "enum" in node or "const" in node:
            return 0.0
        if "properties" not in node and "items" not in node and kinds[0] not in _NESTED:
            return 0.0
        if any(kind not in _NESTED for kind in kinds if kind is not None):
            return 0.0
        if "array" in kinds:
            needed = [self._known(part) for part in _listed(node, "prefixItems")]
            needed += [self._known(node.get("items", True))]
            return 1.0 + (max(needed) if node.get("minItems") else 0.0)
        properties, required = node.get("properties"), node.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return 1.0
        names = [name for name in required if isinstance(name, str)]
        return 1.0 + max((self._known(properties.get(name, True)) for name in names), default=0.0)


_NESTED = ("array", "object")


def _listed(node: dict[str, Any], keyword: str) -> list[Any]:
    found = node.get(keyword)
    return found if isinstance(found, list) else []
