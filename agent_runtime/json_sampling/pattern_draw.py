"""Text drawn from a regular expression, of a length within bounds."""

from __future__ import annotations

import math

import numpy as np

from agent_runtime.json_sampling.pattern_nodes import (
    Chars,
    Choice,
    Node,
    Ranges,
    Repeated,
    Sequenced,
)

_PRINTABLE = (0x20, 0x7E)


class PatternDraw:
    """Draws characters so that their number stays possible.

    Each node knows the fewest and the most characters it can have, and is drawn within what the
    others leave. Lengths between that no text has, as those of ``(aa)*``, are found out by failing.

    Args:
        rng: Draws.
        max_nodes: Nodes visited before it gives up.
    """

    def __init__(self, rng: np.random.Generator, max_nodes: int) -> None:
        self._rng = rng
        self._num_left = max_nodes
        self._spans: dict[int, tuple[float, float]] = {}
        self.characters: list[str] = []

    def append(self, node: Node, least: float, most: float) -> bool:
        """Draw ``least`` to ``most`` characters of ``node``; False if that came out impossible."""
        self._num_left -= 1
        if self._num_left < 0:
            return False
        match node:
            case Chars(ranges=ranges):
                self.characters.append(self._character(ranges))
                return least <= 1 <= most
            case Sequenced(parts=parts):
                return self._sequence(parts, least, most)
            case Choice(options=options):
                spans = [(option, *self._span(option)) for option in options]
                possible = [one for one, few, many in spans if few <= most and many >= least]
                if not possible:
                    return False
                return self.append(possible[int(self._rng.integers(len(possible)))], least, most)
            case Repeated():
                return self._repeats(node, least, most)

    def _sequence(self, parts: tuple[Node, ...], least: float, most: float) -> bool:
        spans = [self._span(part) for part in parts]
        few_behind = sum(few for few, _ in spans)
        many_behind = sum(many for _, many in spans if many < math.inf)
        num_endless = sum(many == math.inf for _, many in spans)
        start = len(self.characters)
        for part, (few, many) in zip(parts, spans, strict=True):
            few_behind -= few
            if many == math.inf:
                num_endless -= 1
            else:
                many_behind -= many
            drawn = len(self.characters) - start
            behind = math.inf if num_endless else many_behind
            low, high = max(few, least - drawn - behind), min(many, most - drawn - few_behind)
            if low > high or not self.append(part, low, high):
                return False
        return least <= len(self.characters) - start <= most

    def _repeats(self, node: Repeated, least: float, most: float) -> bool:
        few, many = self._span(node.part)
        if many == 0:
            return least <= 0
        limit = math.inf if node.most is None else node.most
        start, count, drawn = len(self.characters), 0, 0
        while count < limit:
            enough = count >= node.least and drawn >= least
            if enough and (drawn + few > most or self._rng.random() < 0.5):  # noqa: PLR2004 - a coin
                break
            to_come = max(0, node.least - count - 1)
            can_come = 0.0 if limit == count + 1 else (limit - count - 1) * many
            low, high = max(few, least - drawn - can_come), min(many, most - drawn - to_come * few)
            if low > high or not self.append(node.part, low, high):
                return False
            drawn = len(self.characters) - start
            count += 1
        return least <= drawn <= most

    def _span(self, node: Node) -> tuple[float, float]:
        """Return the fewest and the most characters of a text that matches."""
        span = self._spans.get(id(node))
        if span is None:
            span = self._spans[id(node)] = self._measured(node)
        return span

    def _measured(self, node: Node) -> tuple[float, float]:
        match node:
            case Chars():
                return 1, 1
            case Sequenced(parts=parts):
                spans = [self._span(part) for part in parts]
                return sum(few for few, _ in spans), sum(many for _, many in spans)
            case Choice(options=options):
                spans = [self._span(option) for option in options]
                return min(few for few, _ in spans), max(many for _, many in spans)
            case Repeated(part=part, least=least, most=most):
                few, many = self._span(part)
                if many == 0 or most == 0:
                    return 0, 0
                return least * few, math.inf if most is None else most * many

    def _character(self, ranges: Ranges) -> str:
        nice = _intersection(ranges, (_PRINTABLE,))
        among = nice or ranges
        low, high = among[int(self._rng.integers(len(among)))]
        return chr(int(self._rng.integers(low, high + 1)))


def _intersection(one: Ranges, other: Ranges) -> Ranges:
    return tuple((max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) <= min(b, d))
