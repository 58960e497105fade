"""Numbers for a schema: within bounds, in steps."""

from __future__ import annotations

import math

import numpy as np

from agent_runtime.json_sampling.effective_schema import EffectiveSchema
from agent_runtime.json_sampling.sampling_errors import UnsatisfiableError
from agent_runtime.json_sampling.schema_check import is_multiple

SPAN = 100
"""How far numbers go from the one bound that is given, or from 0."""
_NUM_TRIES = 50


def sample_number(
    flat: EffectiveSchema, rng: np.random.Generator, place: str, *, whole: bool
) -> int | float:
    """Draw a number.

    Raises:
        UnsatisfiableError: None was found within the bounds.
        SchemaError: A keyword is wrong.
    """
    low, high = _window(flat, place)
    steps = flat.numbers("multipleOf", place)
    above = max(flat.numbers("exclusiveMinimum", place), default=-math.inf)
    below = min(flat.numbers("exclusiveMaximum", place), default=math.inf)

    def fits(number: float) -> bool:
        inside = low <= number <= high and above < number < below
        return inside and all(is_multiple(number, step, f"{place}.multipleOf") for step in steps)

    if steps and min(steps) <= 0:
        raise UnsatisfiableError("expected a number > 0", f"{place}.multipleOf")
    for attempt in range(_NUM_TRIES):
        try:
            number = _candidate(low, high, steps, rng, attempt, whole=whole)
        except OverflowError:  # bounds and steps too far apart for floats
            break
        if number is not None and fits(number):
            return number
    raise UnsatisfiableError("found no number within the bounds", place)


def _window(flat: EffectiveSchema, place: str) -> tuple[int | float, int | float]:
    lows = flat.numbers("minimum", place) + flat.numbers("exclusiveMinimum", place)
    highs = flat.numbers("maximum", place) + flat.numbers("exclusiveMaximum", place)
    steps = flat.numbers("multipleOf", place)
    span = SPAN * max(1, *steps) if steps else SPAN
    if lows and highs:
        return max(lows), min(highs)
    if lows:
        return max(lows), max(lows) + max(span, abs(max(lows)))
    if highs:
        return min(highs) - max(span, abs(min(highs))), min(highs)
    return 0, span


def _candidate(
    low: float,
    high: float,
    steps: list[int | float],
    rng: np.random.Generator,
    attempt: int,
    *,
    whole: bool,
) -> int | float | None:
    """Return a number that may fit; later attempts look at the ends of the window."""
    step = _common_step(steps) if steps else 1
    if steps or whole:
        if whole and not isinstance(step, int):
            step = step if step.is_integer() else math.lcm(1, round(1 / step)) * step
        first, last = math.ceil(low / step), math.floor(high / step)
        if isinstance(step, int) and isinstance(low, int) and isinstance(high, int):
            first, last = -(-low // step), high // step
        if first > last:
            return None
        number = _between(first, last, rng, attempt) * step
        return round(number) if whole else number
    if attempt == _NUM_TRIES - 1 or low == high:
        return low + (high - low) / 2 if low != high else low
    drawn = low + float(rng.uniform()) * (high - low)
    return drawn if attempt % 2 else round(drawn, 2)


def _between(first: int, last: int, rng: np.random.Generator, attempt: int) -> int:
    if attempt % 4 == 2:  # noqa: PLR2004 - the ends
        return first
    if attempt % 4 == 3:  # noqa: PLR2004
        return last
    return first + int(float(rng.uniform()) * (last - first + 1)) if last > first else first


def _common_step(steps: list[int | float]) -> int | float:
    wholes = [step for step in steps if isinstance(step, int)]
    return math.lcm(*wholes) if len(wholes) == len(steps) else max(steps)
