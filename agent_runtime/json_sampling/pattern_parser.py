"""From a regular expression's text to its nodes."""

from __future__ import annotations

from agent_runtime.json_sampling.pattern_nodes import (
    SURROGATES,
    Alternative,
    Chars,
    Choice,
    Node,
    PatternError,
    Ranges,
    Repeated,
    Sequenced,
    complement,
)

MAX_REPEATS, MAX_GROUPS = 10_000, 50
_DIGITS = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE = ((0x09, 0x0D), (0x20, 0x20))
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}


class PatternParser:
    """Recursive descent over a pattern's characters; ``top_level`` starts it."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at, self._depth = pattern, 0, 0

    def top_level(self) -> tuple[Alternative, ...]:
        """Parse it all.

        Raises:
            PatternError: Says what is wrong, or not supported, and where.
        """
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
            return Chars(complement(((0x0A, 0x0A), (0x0D, 0x0D))))
        if character == "\\":
            return Chars(self._escape())
        if character in "*+?":
            self._refuse(f"nothing for {character!r} to repeat")
        if character == "^":
            self._refuse("an anchor inside the pattern is not supported")
        return Chars(((ord(character), ord(character)),))

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > MAX_GROUPS:  # or Python's stack would be the limit
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
            return ranges if character.islower() else complement(ranges)
        if character in {"x", "u"}:
            num_digits = 2 if character == "x" else 4
            digits = self._pattern[self._at : self._at + num_digits]
            try:
                code = int(digits, 16)
            except ValueError:
                code = -1
            if code < 0 or len(digits) < num_digits or SURROGATES[0] <= code <= SURROGATES[1]:
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
        merged = complement(ranges) if negated else complement(complement(ranges))
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
