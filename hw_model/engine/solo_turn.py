"""How long a turn takes alone on an idle replica: the yardstick that slowdown is measured with."""

from __future__ import annotations

from hw_model.engine.decode_run import DecodeRun
from hw_model.engine.step_clock import StepTime
from hw_model.step_time import StepShape


def solo_turn_s(
    step_time: StepTime,
    *,
    num_prompt_tokens: int,
    num_cached_tokens: int,
    num_output_tokens: int,
    max_num_batched_tokens: int,
) -> float:
    """Return the seconds from arrival to last token with nobody else on the replica.

    Args:
        step_time: The replica's step times.
        num_prompt_tokens: >= 1.
        num_cached_tokens: Leading prompt tokens already in the KV cache, < ``num_prompt_tokens``.
        num_output_tokens: >= 1.
        max_num_batched_tokens: Prompt tokens a step computes at most.

    Guarantees:
        Equals what ``EngineCore`` takes for the same turn, to rounding.
    """
    total_s = 0.0
    computed = num_cached_tokens
    while computed < num_prompt_tokens:
        chunk = min(num_prompt_tokens - computed, max_num_batched_tokens)
        total_s += step_time.step_s(
            StepShape(
                num_tokens=chunk,
                kv_read_tokens=computed,
                prefill_pairs=chunk * (computed + chunk / 2) if chunk > 1 else 0.0,
                num_sequences=1,
                num_new_requests=int(computed == num_cached_tokens),
            )
        )
        computed += chunk
    if num_output_tokens > 1:
        line = step_time.decode_line(1)
        total_s += DecodeRun(0.0, num_output_tokens - 1, 1, num_prompt_tokens, line).end_s
    return total_s
