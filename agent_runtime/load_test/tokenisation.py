"""How a server counts the tokens of words in messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent_runtime.engine_measurement.filler_text import WORDS

FEW_WORDS, MANY_WORDS = 8, 520
LEAST_TOKENS_PER_WORD = 0.1

Messages = list[dict[str, str]]


class CountSource(StrEnum):
    """Where counts come from."""

    TOKENIZE = "/tokenize"
    USAGE = "usage"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Tokenisation:
    """Tokens of a prompt: ``opening + sum over messages (message + per_word x words)``.

    Attributes:
        tokens_per_word: Of common English words, space included.
        message_tokens: Of a message beside its text.
        opening_tokens: Of a prompt beside its messages: its beginning, and what opens the reply.
        source: Where that is from.
    """

    tokens_per_word: float
    message_tokens: float
    opening_tokens: float
    source: CountSource

    @classmethod
    def of_counts(cls, counts: Sequence[int], source: CountSource) -> Tokenisation:
        """Return what the counts of the ``calibration_prompts`` mean, in their order."""
        few, many, three = counts
        per_word = max(LEAST_TOKENS_PER_WORD, (many - few) / (MANY_WORDS - FEW_WORDS))
        message = max(0.0, (three - few - 2 * FEW_WORDS * per_word) / 2)
        return cls(per_word, message, few - message - FEW_WORDS * per_word, source)


ASSUMED = Tokenisation(1.0, 4.0, 3.0, CountSource.ASSUMED)
"""For servers that tell no counts; about what chat templates and vocabularies come to."""


def calibration_prompts() -> list[Messages]:
    """Return three prompts whose counts tell how the server counts."""
    few = _words(FEW_WORDS, 1)
    return [
        [_said("user", few)],
        [_said("user", _words(MANY_WORDS, 2))],
        [_said("user", few), _said("assistant", few), _said("user", few)],
    ]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _words(count: int, step: int) -> str:
    return " ".join(WORDS[(step * index) % len(WORDS)] for index in range(count))
