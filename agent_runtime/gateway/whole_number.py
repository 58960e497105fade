"""Whole numbers as JSON has them: 16 and 16.0 are one, "16" and true are none."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator


def _without_fraction(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole: TypeAlias = Annotated[int, BeforeValidator(_without_fraction)]
"""A field of a body; ``parse_body`` takes no other types for it."""
