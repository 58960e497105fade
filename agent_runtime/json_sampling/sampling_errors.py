"""Why a schema gives no value."""

from __future__ import annotations


class SchemaError(Exception):
    """A schema that is wrong, not supported, or that no value was found for.

    Attributes:
        place: Where in the schema, e.g. ``.properties.age.minimum``.
        problem: What is wrong there.
    """

    def __init__(self, problem: str, place: str) -> None:
        self.problem, self.place = problem, place
        super().__init__(f"{place}: {problem}")


class UnsatisfiableError(SchemaError):
    """No value was found; another branch of the schema may have one."""


class EffortError(SchemaError):
    """More work than one schema may take; no other branch is tried."""
