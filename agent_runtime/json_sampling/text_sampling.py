"""Strings for a schema: by pattern, by format, or words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import numpy as np

from agent_runtime.json_sampling.effective_schema import EffectiveSchema
from agent_runtime.json_sampling.pattern_nodes import LengthError
from agent_runtime.json_sampling.regular_pattern import RegularPattern
from agent_runtime.json_sampling.sampling_errors import UnsatisfiableError
from agent_runtime.json_sampling.schema_document import MAX_CHARACTERS, SchemaDocument
from agent_runtime.json_sampling.vocabulary import WORDS

MAX_WORDS = 6
COST_OF_A_FAILURE = 1_000
_FIRST_DAY = date(2026, 1, 1)


def sample_text(
    flat: EffectiveSchema, document: SchemaDocument, rng: np.random.Generator, place: str
) -> str:
    """Draw a string.

    Raises:
        UnsatisfiableError: No string was found that is allowed.
        SchemaError: A keyword is wrong.
    """
    least = flat.largest("minLength", 0, place)
    most = flat.smallest("maxLength", place)
    if most is not None and least > most:
        raise UnsatisfiableError("minLength is above maxLength", f"{place}.minLength")
    if least > MAX_CHARACTERS:
        problem = f"more than {MAX_CHARACTERS} characters are not written"
        raise UnsatisfiableError(problem, f"{place}.minLength")
    patterns = [
        document.pattern(part["pattern"], f"{place}.pattern")
        for part in flat.parts
        if "pattern" in part
    ]
    if patterns:
        most = most if most is None else min(most, MAX_CHARACTERS)
        try:
            return _matching(patterns, rng, least, most)
        except LengthError as error:
            document.spend(place, COST_OF_A_FAILURE)
            raise UnsatisfiableError(str(error), f"{place}.pattern") from error
    names = [part["format"] for part in flat.parts if isinstance(part.get("format"), str)]
    for name in names:
        text = _FORMATS[name](rng) if name in _FORMATS else None
        if text is not None and least <= len(text) <= (len(text) if most is None else most):
            return text
    return words(rng, least, most)


def words(rng: np.random.Generator, least: int = 0, most: int | None = None) -> str:
    """Return words of at least and at most so many characters."""
    num_words = int(rng.integers(1, MAX_WORDS + 1))
    picked = [WORDS[pick] for pick in rng.integers(len(WORDS), size=num_words).tolist()]
    text = " ".join(picked)
    if len(text) < least:
        more = rng.integers(len(WORDS), size=least - len(text)).tolist()
        text = " ".join([text, *(WORDS[pick] for pick in more)])[: max(least, len(text))]
    text = text if most is None else text[:most]
    return text[:-1] + "s" if text.endswith(" ") else text


def _matching(
    patterns: list[RegularPattern], rng: np.random.Generator, least: int, most: int | None
) -> str:
    first, *others = patterns
    for _ in range(16):
        text = first.sample(rng, min_length=least, max_length=most)
        if all(other.found_in(text) for other in others):
            return text
    raise LengthError("found no text that matches all patterns")


def _word(rng: np.random.Generator) -> str:
    return WORDS[int(rng.integers(len(WORDS)))]


def _day(rng: np.random.Generator) -> str:
    return (_FIRST_DAY + timedelta(days=int(rng.integers(365)))).isoformat()


def _moment(rng: np.random.Generator) -> str:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    moment = first + timedelta(seconds=int(rng.integers(365 * 86_400)))
    return moment.isoformat().replace("+00:00", "Z")


def _uuid(rng: np.random.Generator) -> str:
    return str(UUID(bytes=rng.bytes(16), version=4))


def _byte_group(rng: np.random.Generator, sign: str, form: str, size: int, top: int) -> str:
    return sign.join(format(int(number), form) for number in rng.integers(1, top, size=size))


_FORMATS: dict[str, Callable[[np.random.Generator], str]] = {
    "date": _day,
    "date-time": _moment,
    "time": lambda rng: _moment(rng)[11:],
    "duration": lambda rng: f"PT{int(rng.integers(1, 600))}S",
    "email": lambda rng: f"{_word(rng)}@example.com",
    "idn-email": lambda rng: f"{_word(rng)}@example.com",
    "hostname": lambda rng: f"{_word(rng)}.example.com",
    "uri": lambda rng: f"https://example.com/{_word(rng)}",
    "uri-reference": lambda rng: f"/{_word(rng)}/{_word(rng)}",
    "uuid": _uuid,
    "uuid4": _uuid,
    "ipv4": lambda rng: "10." + _byte_group(rng, ".", "d", 3, 255),
    "ipv6": lambda rng: "fd00:" + _byte_group(rng, ":", "x", 7, 65_535),
    "json-pointer": lambda rng: f"/{_word(rng)}",
}
"""Formats of JSON schema's draft 2020-12 that a program may parse."""
