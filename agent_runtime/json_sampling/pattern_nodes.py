"""What a regular expression consists of once it is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_CODE_POINT = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)

Ranges: TypeAlias = tuple[tuple[int, int], ...]
Node: TypeAlias = "Chars | Sequenced | Choice | Repeated"


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these ranges of code points, ends included."""

    ranges: Ranges

    def __contains__(self, character: str) -> bool:
        code = ord(character)
        return any(low <= code <= high for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class Sequenced:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of them."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """Again and again; ``most`` is None without an upper bound."""

    part: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Alternative:
    """One top-level alternative and what it is anchored to."""

    node: Node
    at_start: bool
    at_end: bool


class PatternError(ValueError):
    """A pattern that is wrong, or of a kind that is not supported."""


class LengthError(ValueError):
    """No text of the length asked for was found in the pattern's language."""


def complement(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Return all other code points that are characters, in order."""
    gaps, at = [], 0
    for low, high in sorted((*ranges, SURROGATES)):
        if low > at:
            gaps.append((at, low - 1))
        at = max(at, high + 1)
    if at <= MAX_CODE_POINT:
        gaps.append((at, MAX_CODE_POINT))
    return tuple(gaps)
