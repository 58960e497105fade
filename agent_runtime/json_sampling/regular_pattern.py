"""Regular expressions as far as one can both draw text from them and match in polynomial time.

Literals, classes, escapes, groups, alternatives and quantifiers; anchors at the ends. No
look-around, back references or word boundaries: those are refused. Matching keeps the set of
positions that can be reached, so no pattern makes it exponential. Classes for digits, words and
spaces are ASCII, as in ECMA-262, the dialect of JSON schema.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_runtime.json_sampling.pattern_draw import PatternDraw
from agent_runtime.json_sampling.pattern_nodes import (
    Alternative,
    Chars,
    Choice,
    LengthError,
    Node,
    Repeated,
    Sequenced,
)
from agent_runtime.json_sampling.pattern_parser import PatternParser

NUM_TRIES = 24
USUAL_LENGTH = 1_000
"""The most characters beyond those that are needed."""


@dataclass(frozen=True, slots=True)
class RegularPattern:
    """A parsed pattern; ``parse_pattern`` makes it."""

    alternatives: tuple[Alternative, ...]

    def found_in(self, text: str) -> bool:
        """Say whether some part of ``text`` matches, as ``re.search`` with ``re.ASCII`` would."""
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
        for _ in range(NUM_TRIES):
            alternative = self.alternatives[int(rng.integers(len(self.alternatives)))]
            drawn = PatternDraw(rng, max_nodes=4 * limit + 1_000)
            if drawn.append(alternative.node, min_length, limit):
                return "".join(drawn.characters)
        raise LengthError(f"found no text of {min_length} to {limit} characters that matches")


def parse_pattern(pattern: str) -> RegularPattern:
    """Parse a pattern.

    Raises:
        PatternError: Says what is wrong with it, or not supported.
    """
    return RegularPattern(PatternParser(pattern).top_level())


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
