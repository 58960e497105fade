"""What is measured on a running engine: times, and the steps that each of them is made of.

A probe is designed so that its steps are known: a prompt alone, sequences that only decode, a
prompt beside some that decode. So nothing has to be known of the engine but how it cuts prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hw_model.step_time import StepShape


class ProbeKind(StrEnum):
    """What a time tells most about."""

    PROMPT = "TTFT, new prompt"
    HIT = "TTFT, cached prompt"
    DECODE = "decoding, alone"
    BATCH = "decoding, batch"
    MIXED = "prompt beside decoding"


@dataclass(frozen=True, slots=True)
class Observation:
    """One time that was measured.

    Attributes:
        kind: What it is of.
        label: The same for repetitions of one probe.
        steps: The engine's, in it.
        front_end_tokens: The prompt that came through the front end within it; None if none did.
        seconds: How long it took.
    """

    kind: ProbeKind
    label: str
    steps: tuple[StepShape, ...]
    front_end_tokens: int | None
    seconds: float


def prompt_steps(
    num_prompt_tokens: int, num_cached_tokens: int, budget_tokens: int, beside: StepShape
) -> tuple[StepShape, ...]:
    """Return the steps that compute a prompt.

    Args:
        num_prompt_tokens: Of the whole prompt.
        num_cached_tokens: Leading ones that the prefix cache has, fewer.
        budget_tokens: New tokens in a step.
        beside: The step of those that decode meanwhile; ``NOTHING`` if nobody does.
    """
    steps = []
    computed = num_cached_tokens
    while computed < num_prompt_tokens:
        chunk = min(num_prompt_tokens - computed, budget_tokens - beside.num_tokens)
        steps.append(
            StepShape(
                num_tokens=beside.num_tokens + chunk,
                kv_read_tokens=beside.kv_read_tokens + computed,
                prefill_pairs=chunk * (computed + chunk / 2) if chunk > 1 else 0.0,
                num_sequences=beside.num_sequences + 1,
                num_new_requests=int(computed == num_cached_tokens),
            )
        )
        computed += chunk
    return tuple(steps)


def decode_step(contexts_tokens: Sequence[int]) -> StepShape:
    """Return the step in which so many sequences with these contexts get a token each."""
    return StepShape(
        num_tokens=len(contexts_tokens),
        kv_read_tokens=sum(contexts_tokens),
        prefill_pairs=0.0,
        num_sequences=len(contexts_tokens),
        num_new_requests=0,
    )


NOTHING = decode_step(())


def budget_of(num_prompt_tokens: int, num_decoding: int, num_steps: int) -> int | None:
    """Return a step's token budget from how a prompt was cut, taken to be a power of two.

    Args:
        num_prompt_tokens: New ones of the prompt.
        num_decoding: Sequences that decoded beside it.
        num_steps: That it took; one with a short rest may have been overlooked.

    Returns:
        The largest that fits, or None when the prompt took one step, so any larger one fits.
    """
    if num_steps <= 1:
        return None
    mean = num_prompt_tokens / num_steps + num_decoding
    most = (num_prompt_tokens - 1) // (num_steps - 1) + num_decoding
    largest = 1 << (most.bit_length() - 1)
    return int(largest if largest >= mean else 2 ** round(math.log2(mean)))
