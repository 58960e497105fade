"""Regular expressions as far as one can both draw text from them and match in polynomial time.

Literals, classes, escapes, groups, alternatives and quantifiers; anchors at the ends. No
look-around, back references or word boundaries: those are refused. Matching keeps the set of
positions that can be reached, so no pattern makes it exponential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

MAX_CODE_POINT = 0x10FFFF
MAX_REPEATS = 10_000
USUAL_LENGTH = 1_000
"""The most characters beyond those that are needed."""
_PRINTABLE = (0x20, 0x7E)
_DIGITS = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE = ((0x09, 0x0D), (0x20, 0x20))
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}

Ranges: TypeAlias = tuple[tuple[int, int], ...]
Node: TypeAlias = "Chars | Sequenced | Choice | Repeated"


class PatternError(ValueError):
    """A pattern that is wrong, or of a kind that is not supported."""


class LengthError(ValueError):
    """No text of the length asked for was found in the pattern's language."""


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


@dataclass(frozen=True, slots=True)
class RegularPattern:
    """A parsed pattern; ``parse_pattern`` makes it."""

    alternatives: tuple[Alternative, ...]

    def found_in(self, text: str) -> bool:
        """Say whether some part of ``text`` matches, as ``re.search`` would."""
        everywhere = range(len(text) + 1)
        for alternative in self.alternatives:
            starts = {0} if alternative.at_start else set(everywhere)
            ends = _ends(alternative.node, text, starts)
            if len(text) in ends if alternative.at_end else ends:
                return True
        return False

    def sample(
        self, rng: np.random.Generator, *, min_length: int = 0, max_length: int | None = None
    ) -> str:
        """Draw a text that matches as a whole.

        Raises:
            LengthError: None of the length asked for was found.
        """
        limit = min_length + USUAL_LENGTH if max_length is None else max_length
        if min(_fewest(alternative.node) for alternative in self.alternatives) > limit:
            raise LengthError(f"every text that matches has more than {limit} characters")
        for attempt in range(24):
            stretch = 0 if attempt == 1 else 1 << min(attempt // 2, 12)
            alternative = self.alternatives[int(rng.integers(len(self.alternatives)))]
            drawn = _Draw(rng, stretch, limit)
            if drawn.append(alternative.node) and min_length <= len(drawn.characters):
                return "".join(drawn.characters)
        most = "any" if max_length is None else max_length
        raise LengthError(f"found no text of {min_length} to {most} characters that matches")


def parse_pattern(pattern: str) -> RegularPattern:
    """Parse a pattern.

    Raises:
        PatternError: Says what is wrong with it, or not supported.
    """
    return RegularPattern(_Parser(pattern).top_level())


class _Draw:
    """Draws characters until there are too many."""

    def __init__(self, rng: np.random.Generator, stretch: int, limit: int) -> None:
        self._rng, self._stretch, self._limit = rng, stretch, limit
        self._num_left = 4 * limit + 10_000  # nodes, of which empty ones give no character
        self.characters: list[str] = []

    def append(self, node: Node) -> bool:
        """Draw a text of ``node``; False if there are too many characters."""
        self._num_left -= 1
        if self._num_left < 0:
            return False
        match node:
            case Chars(ranges=ranges):
                self.characters.append(self._character(ranges))
                return len(self.characters) <= self._limit
            case Sequenced(parts=parts):
                return all(self.append(part) for part in parts)
            case Choice(options=options):
                return self.append(options[int(self._rng.integers(len(options)))])
            case Repeated(part=part):
                return all(self.append(part) for _ in range(self._num_repeats(node)))

    def _num_repeats(self, node: Repeated) -> int:
        extra = int(self._rng.integers(2 * self._stretch + 1))
        return node.least + extra if node.most is None else min(node.most, node.least + extra)

    def _character(self, ranges: Ranges) -> str:
        nice = _intersection(ranges, (_PRINTABLE,))
        among = nice or ranges
        low, high = among[int(self._rng.integers(len(among)))]
        return chr(int(self._rng.integers(low, high + 1)))


def _fewest(node: Node) -> int:
    """Return the fewest characters of a text that matches."""
    match node:
        case Chars():
            return 1
        case Sequenced(parts=parts):
            return sum(_fewest(part) for part in parts)
        case Choice(options=options):
            return min(_fewest(option) for option in options)
        case Repeated(part=part, least=least):
            return least * _fewest(part)


def _ends(node: Node, text: str, starts: set[int]) -> set[int]:
    """Return where matches that begin at ``starts`` may end."""
    if not starts:
        return starts
    match node:
        case Chars():
            return {at + 1 for at in starts if at < len(text) and text[at] in node}
        case Sequenced(parts=parts):
            for part in parts:
                starts = _ends(part, text, starts)
            return starts
        case Choice(options=options):
            return set[int]().union(*(_ends(option, text, starts) for option in options))
        case Repeated(part=part, least=least, most=most):
            return _repeated_ends(part, text, starts, least, most)


def _repeated_ends(
    part: Node, text: str, starts: set[int], least: int, most: int | None
) -> set[int]:
    for _ in range(least):
        after = _ends(part, text, starts)
        if after == starts:
            break
        starts = after
    reached, new, num_more = set(starts), starts, 0
    while new and (most is None or num_more < most - least):
        new = _ends(part, text, new) - reached
        reached |= new
        num_more += 1
    return reached


class _Parser:
    """Recursive descent over the pattern's characters."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at, self._depth = pattern, 0, 0

    def top_level(self) -> tuple[Alternative, ...]:
        alternatives = []
        while True:
            at_start = self._take("^")
            node = self._sequence()
            at_end = self._take("$")
            alternatives.append(Alternative(node, at_start, at_end))
            if not self._take("|"):
                break
        if self._at < len(self._pattern):
            self._refuse(f"{self._pattern[self._at]!r} is not expected here")
        return tuple(alternatives)

    def _refuse(self, problem: str) -> None:
        raise PatternError(f"{problem} (position {self._at} of the pattern)")

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, expected: str) -> bool:
        found = self._pattern.startswith(expected, self._at)
        self._at += len(expected) if found else 0
        return found

    def _next(self) -> str:
        character = self._peek()
        if not character:
            self._refuse("it ends too early")
        self._at += 1
        return character

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while (character := self._peek()) and character not in "|)$":
            parts.append(self._quantified(self._atom()))
        return parts[0] if len(parts) == 1 else Sequenced(tuple(parts))

    def _atom(self) -> Node:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return Chars(self._bracketed())
        if character == ".":
            return Chars(_complement(((0x0A, 0x0A), (0x0D, 0x0D))))
        if character == "\\":
            return Chars(self._escape())
        if character in "*+?":
            self._refuse(f"nothing for {character!r} to repeat")
        if character == "^":
            self._refuse("an anchor inside the pattern is not supported")
        return Chars(((ord(character), ord(character)),))

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > 50:  # noqa: PLR2004 - or Python's stack would be the limit
            self._refuse("too many groups inside each other")
        if self._take("?") and not self._take(":"):
            named = self._take("P<") or (self._take("<") and self._peek() not in {"=", "!"})
            if not named:
                self._refuse("look-around and flags are not supported")
            while self._next() != ">":
                pass
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        if self._peek() == "$":
            self._refuse("an anchor inside a group is not supported")
        if not self._take(")"):
            self._refuse("a group is not closed")
        self._depth -= 1
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _quantified(self, node: Node) -> Node:
        bounds: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        character = self._peek()
        if character in bounds and character:
            self._at += 1
            least, most = bounds[character]
        elif character == "{" and (counted := self._counted()) is not None:
            least, most = counted
        else:
            return node
        if not self._take("?"):  # lazy: the same language
            self._take("+")
        if max(least, most or 0) > MAX_REPEATS:
            self._refuse(f"more than {MAX_REPEATS} repeats are not supported")
        return Repeated(node, least, most)

    def _counted(self) -> tuple[int, int | None] | None:
        inside, closing, _ = self._pattern[self._at + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        digits = (low + high).isascii() and (low + high).isdigit() and len(inside) < 20  # noqa: PLR2004
        if not closing or not digits or not low:
            self._next()
            self._refuse("write a brace that is no count as \\{")
        self._at += len(inside) + 2
        most = int(low) if not comma else int(high) if high else None
        if most is not None and most < int(low):
            self._refuse("a count's bounds are the wrong way round")
        return int(low), most

    def _escape(self) -> Ranges:
        character = self._next()
        if character.lower() in _CLASSES:
            ranges = _CLASSES[character.lower()]
            return ranges if character.islower() else _complement(ranges)
        if character in {"x", "u"}:
            num_digits = 2 if character == "x" else 4
            digits = self._pattern[self._at : self._at + num_digits]
            try:
                code = int(digits, 16)
            except ValueError:
                code = -1
            if code < 0 or len(digits) < num_digits or 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004
                self._refuse(f"\\{character} needs {num_digits} hexadecimal digits of a character")
            self._at += num_digits
            return ((code, code),)
        if character in _CONTROLS:
            return ((ord(_CONTROLS[character]),) * 2,)
        if character.isalnum():
            self._refuse(f"\\{character} is not supported")
        return ((ord(character),) * 2,)

    def _bracketed(self) -> Ranges:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            low = self._class_member()
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in {"]", ""}:
                self._at += 1
                high = self._class_member()
                if len(low) > 1 or len(high) > 1 or low[0][0] > high[0][1]:
                    self._refuse("a range that is none")
                ranges.append((low[0][0], high[0][1]))
            else:
                ranges.extend(low)
        self._at += 1
        merged = _complement(ranges) if negated else _complement(_complement(ranges))
        if not merged:
            self._refuse("a class that no character is in")
        return merged

    def _class_member(self) -> Ranges:
        character = self._next()
        if character == "\\":
            if self._take("b"):
                return ((8, 8),)
            return self._escape()
        return ((ord(character),) * 2,)


def _complement(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Return all other code points that are characters, in order."""
    gaps, at = [], 0
    for low, high in sorted((*ranges, (0xD800, 0xDFFF))):
        if low > at:
            gaps.append((at, low - 1))
        at = max(at, high + 1)
    if at <= MAX_CODE_POINT:
        gaps.append((at, MAX_CODE_POINT))
    return tuple(gaps)


def _intersection(one: Ranges, other: Ranges) -> Ranges:
    return tuple((max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) <= min(b, d))
