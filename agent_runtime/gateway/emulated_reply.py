"""What an emulated model says: as much as is asked, the same for the same prompt and seed."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_runtime.prompts.tokeniser import tokenise

MEDIAN_TOKENS, SIGMA = 220, 1.1
"""Outputs of coding agents: p50 214-252, p90 ~900 (TraceLab, kv-cache-tester)."""

# fmt: off
WORDS = (
    "a", "again", "agent", "all", "an", "and", "asks", "at", "both", "calls", "checks", "clear",
    "code", "compares", "data", "down", "drops", "edits", "facts", "fails", "file", "finds", "for",
    "green", "issue", "it", "keeps", "learned", "lines", "logs", "looks", "merges", "more", "next",
    "notes", "old", "one", "only", "opens", "parser", "plans", "reads", "real", "results", "return",
    "runs", "saves", "short", "so", "steps", "test", "that", "the", "then", "time", "tools", "two",
    "until", "waits", "what", "when", "which", "with", "work", "writes",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """What bounds a reply's length, all in tokens.

    Attributes:
        max_tokens: As the caller asked, or None.
        min_tokens: At least so many.
        ignore_eos: Generate exactly ``max_tokens`` if that is given.
        room: What the replica's KV leaves after the prompt, >= 1.
    """

    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    room: int


_PIECES = tuple(f" {word}" for word in WORDS)
_TOKENS = np.array([tokenise(piece)[0] for piece in _PIECES], dtype=np.uint32)
_FIRST_TOKENS = np.array([tokenise(word)[0] for word in WORDS], dtype=np.uint32)
"""A reply starts without the space, which clients would strip."""


class EmulatedReply:
    """Words of one token each, alone and joined, and why they end.

    So a client that sends the reply back extends the same KV blocks.
    """

    __slots__ = ("_picks", "finish_reason")  # picks: indices into WORDS, at least one

    def __init__(self, picks: NDArray[np.int64], finish_reason: str) -> None:
        self._picks = picks
        self.finish_reason = finish_reason

    @property
    def num_tokens(self) -> int:
        """Tokens in all."""
        return len(self._picks)

    def tokens(self) -> array[int]:
        """Return the ids of all tokens."""
        tokens = _TOKENS[self._picks]
        tokens[0] = _FIRST_TOKENS[self._picks[0]]
        return array("I", tokens.tobytes())

    def text(self, start: int = 0, stop: int | None = None) -> str:
        """Return the text of the tokens ``start <= position < stop``."""
        text = "".join([_PIECES[pick] for pick in self._picks[start:stop].tolist()])
        return text if start else text[1:]


def emulated_reply(limits: ReplyLimits, *, seed: int, prompt_digest: bytes) -> EmulatedReply:
    """Make up a reply; ``length`` is why it ends when a limit cut it short, else ``stop``."""
    rng = np.random.default_rng([seed, int.from_bytes(prompt_digest[:8])])
    cap = limits.room if limits.max_tokens is None else min(limits.max_tokens, limits.room)
    natural = max(1, limits.min_tokens, round(float(rng.lognormal(np.log(MEDIAN_TOKENS), SIGMA))))
    endless = limits.ignore_eos and limits.max_tokens is not None
    num_tokens = cap if endless else min(natural, cap)
    picks = rng.integers(len(WORDS), size=num_tokens)
    finish_reason = "length" if endless or natural > cap else "stop"
    return EmulatedReply(picks, finish_reason)
