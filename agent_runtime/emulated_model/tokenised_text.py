"""Text cut into the tokens that it is generated as, made up or given."""

from __future__ import annotations

import itertools
from array import array
from dataclasses import dataclass

import numpy as np

from agent_runtime.json_sampling.vocabulary import WORDS
from agent_runtime.prompts.tokeniser import cut, tokenise

_PIECES = tuple(f" {word}" for word in WORDS)
_LENGTHS = np.array([len(piece) for piece in _PIECES], dtype=np.uint32)
_TOKENS = np.array([tokenise(piece)[0] for piece in _PIECES], dtype=np.uint32)
_FIRST_TOKENS = np.array([tokenise(word)[0] for word in WORDS], dtype=np.uint32)
"""A text starts without the space, which clients would strip."""


@dataclass(frozen=True, slots=True)
class TokenisedText:
    """A text and its tokens.

    Invariant: ``tokens`` is ``tokenise(text)``, so a client that sends the text back extends the KV
        blocks that its generation filled.

    Attributes:
        text: What is said.
        tokens: Their ids.
        ends: Per token the position in ``text`` where it ends, in characters.
    """

    text: str
    tokens: array[int]
    ends: array[int]

    @property
    def num_tokens(self) -> int:
        """Tokens in all."""
        return len(self.tokens)

    def followed_by(self, text: str) -> TokenisedText:
        """Return this text with another behind it that starts with white space."""
        if self.text[-1:].isspace():  # white space joins: a token may reach across the seam
            return tokenised(self.text + text)
        more = tokenised(text)
        start = len(self.text)
        ends = self.ends + array("I", [start + end for end in more.ends])
        return TokenisedText(self.text + text, self.tokens + more.tokens, ends)


def tokenised(text: str) -> TokenisedText:
    """Cut a given text. O(len(text))."""
    ends = array("I", itertools.accumulate(map(len, cut(text))))
    return TokenisedText(text, tokenise(text), ends)


def made_up_text(rng: np.random.Generator, num_tokens: int) -> TokenisedText:
    """Return words of one token each, ``num_tokens`` >= 1 in all."""
    picks = rng.integers(len(WORDS), size=num_tokens)
    tokens = _TOKENS[picks]
    tokens[0] = _FIRST_TOKENS[picks[0]]
    ends = np.cumsum(_LENGTHS[picks], dtype=np.uint32) - np.uint32(1)
    text = "".join([_PIECES[pick] for pick in picks.tolist()])[1:]
    return TokenisedText(text, array("I", tokens.tobytes()), array("I", ends.tobytes()))
