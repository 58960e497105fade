"""Text of about so many tokens, whatever the engine's tokeniser, that no cache has seen before."""

from __future__ import annotations

from typing import Any

import numpy as np

_COMMON_WORDS = """
the of and to in is that for it as with on be at by this had not are but from or have an
they which one you were all her she there would their we him been has when who will no
more if out so up said what its about than into them can only other time new some could
these two may first then do any like my now over such our man me even most made after also
did many
"""
WORDS = _COMMON_WORDS.split()

FIRST_TOKENS_PER_WORD = 1.3


class FillerText:
    """Makes prompts, and learns from what the engine counts how long they come out.

    Args:
        seed: Of the words.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._tokens_per_word = FIRST_TOKENS_PER_WORD
        self._tokens_around = 0.0

    def messages(self, num_tokens: int) -> list[dict[str, Any]]:
        """Return a conversation of about so many tokens, new in its first words already."""
        num_words = round((num_tokens - self._tokens_around) / self._tokens_per_word)
        words = self._random.choice(WORDS, max(1, num_words))
        return [{"role": "user", "content": " ".join(words.tolist())}]

    def learn(self, few: tuple[int, int], many: tuple[int, int]) -> None:
        """Take in what two prompts were counted as: (words, tokens) of a short and a long one."""
        (few_words, few_tokens), (many_words, many_tokens) = few, many
        self._tokens_per_word = max(0.1, (many_tokens - few_tokens) / (many_words - few_words))
        self._tokens_around = few_tokens - few_words * self._tokens_per_word


def num_words(messages: list[dict[str, Any]]) -> int:
    """Return how many words a conversation has."""
    return sum(len(message["content"].split()) for message in messages)
