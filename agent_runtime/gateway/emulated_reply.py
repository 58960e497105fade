"""What an emulated model says: as much as is asked, the same for the same prompt and seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True, slots=True)
class EmulatedReply:
    """One-token pieces of text, and why they end."""

    pieces: tuple[str, ...]
    finish_reason: str


def emulated_reply(limits: ReplyLimits, *, seed: int, prompt_digest: bytes) -> EmulatedReply:
    """Make up a reply.

    Returns:
        Pieces that tokenise to one token each, alone and joined, so that a client that sends the
        reply back extends the same KV blocks. ``length`` is the reason when a limit cut it short.
    """
    rng = np.random.default_rng([seed, int.from_bytes(prompt_digest[:8])])
    cap = limits.room if limits.max_tokens is None else min(limits.max_tokens, limits.room)
    natural = max(1, limits.min_tokens, round(float(rng.lognormal(np.log(MEDIAN_TOKENS), SIGMA))))
    endless = limits.ignore_eos and limits.max_tokens is not None
    num_tokens = cap if endless else min(natural, cap)
    picks = rng.integers(len(WORDS), size=num_tokens)
    finish_reason = "length" if endless or natural > cap else "stop"
    return EmulatedReply(tuple(f" {WORDS[pick]}" for pick in picks), finish_reason)
