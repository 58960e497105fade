"""Log-probabilities of a reply's tokens: made up, well-formed, and the same every time."""

from __future__ import annotations

import math
from typing import Any

from agent_runtime.emulated_model.reply import Reply
from agent_runtime.json_sampling.vocabulary import WORDS

_SCATTER = 2_654_435_761
"""Knuth's multiplicative hash: spreads neighbouring token ids over 32 bits."""
SILENT_TEXT = "<|endoftext|>"
SPREAD, STEEPNESS = 4.0, 6
"""-log p = SPREAD * u ** STEEPNESS: most tokens are near certain, few are a surprise. Assumed."""


def token_logprobs(reply: Reply, start: int, stop: int, num_top: int) -> list[dict[str, Any]]:
    """Return the entries of ``logprobs.content`` for the tokens ``start <= position < stop``."""
    return [_entry(reply, position, num_top) for position in range(start, stop)]


def _entry(reply: Reply, position: int, num_top: int) -> dict[str, Any]:
    mixed = (reply.tokens[position] + position) * _SCATTER & 0xFFFF_FFFF
    logprob = -SPREAD * (mixed / 2**32) ** STEEPNESS
    chosen = _token(reply.token_text(position) or SILENT_TEXT, logprob)
    top = [chosen, *_others(chosen, mixed, num_top - 1)] if num_top else []
    return {**chosen, "top_logprobs": sorted(top, key=lambda one: -float(one["logprob"]))}


def _others(chosen: dict[str, Any], mixed: int, number: int) -> list[dict[str, Any]]:
    """Return other tokens, each half as likely as the one before it, in what is left of 1."""
    left = max(1.0 - math.exp(chosen["logprob"]), 1e-6)
    texts = (f" {WORDS[(mixed + offset) % len(WORDS)]}" for offset in range(number + 1))
    others = [text for text in texts if text != chosen["token"]][:number]
    return [_token(text, math.log(left) - math.log(2) * (n + 1)) for n, text in enumerate(others)]


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": round(logprob, 6), "bytes": list(text.encode())}
