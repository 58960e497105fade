"""How long one engine step takes, from sums over the batch.

Sums and not means: a batch of one 120k context and seven short ones costs what it costs. Dense
and expert weights are read once a step however many sequences share them. For a fixed decode batch
the time is affine in the summed context, which the engine's macro-stepping relies on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.step_costs import StepCosts


@dataclass(frozen=True, slots=True)
class StepShape:
    """What one step computes, summed over its sequences.

    Attributes:
        num_tokens: New tokens, prefill and decode.
        kv_read_tokens: Context tokens whose KV attention reads: per sequence, all before its new
            ones.
        prefill_pairs: Query-key pairs of prefill chunks: sum of chunk * (before + chunk / 2).
        num_sequences: Sequences with at least one new token.
        num_new_requests: Sequences that run for the first time.
    """

    num_tokens: int
    kv_read_tokens: int
    prefill_pairs: float
    num_sequences: int
    num_new_requests: int


@dataclass(frozen=True, slots=True)
class StepShapes:
    """Many steps at once: the fields of :class:`StepShape` as arrays of one length."""

    num_tokens: NDArray[np.int64]
    kv_read_tokens: NDArray[np.int64]
    prefill_pairs: NDArray[np.float64]
    num_sequences: NDArray[np.int64]
    num_new_requests: NDArray[np.int64]


class StepTimeModel:
    """Seconds per engine step of one replica at one band.

    Source:
        Roofline per component (Pope et al. 2022, section 3) plus explicit overheads; the terms and
        why each exists: docs/hardware.md.

    Raises:
        ConfigError: The chip does not compute with such weights.
    """

    __slots__ = ("_costs",)

    def __init__(self, deployment: Deployment, band: Band) -> None:
        self._costs = StepCosts.of(deployment, band)

    def step_s(self, shape: StepShape) -> float:
        """Return the seconds of one step, > 0 and non-decreasing in every field of ``shape``."""
        costs = self._costs
        step_s = (
            self._batch_s(shape.num_tokens, shape.num_sequences)
            + shape.kv_read_tokens * costs.per_kv_token_s
            + shape.prefill_pairs * costs.per_prefill_pair_s
        )
        if shape.prefill_pairs > 0:
            step_s = max(step_s, costs.least_prefill_s)
        return step_s + shape.num_new_requests * costs.per_request_s

    def steps_s(self, shapes: StepShapes) -> NDArray[np.float64]:
        """Return ``step_s`` of every step, equal to rounding."""
        costs = self._costs
        tokens = shapes.num_tokens
        dense_s = np.maximum(costs.dense_bytes_s, costs.dense_flops_s_per_token * tokens)
        experts = costs.num_experts * (1 - np.power(costs.expert_miss, tokens * costs.token_copies))
        expert_s = np.maximum(
            costs.byte_s_per_expert * experts, costs.expert_flops_s_per_token * tokens
        )
        step_s = (
            costs.base_s
            + dense_s
            + expert_s
            + tokens * costs.collective_s_per_token
            + shapes.num_sequences * costs.per_sequence_s
            + shapes.kv_read_tokens * costs.per_kv_token_s
            + shapes.prefill_pairs * costs.per_prefill_pair_s
        )
        floor_s = np.where(shapes.prefill_pairs > 0, costs.least_prefill_s, 0.0)
        total_s: NDArray[np.float64] = np.maximum(step_s, floor_s)
        return total_s + shapes.num_new_requests * costs.per_request_s

    def decode_line(self, num_sequences: int) -> tuple[float, float]:
        """Return ``(fixed_s, per_kv_token_s)`` of a pure decode step of ``num_sequences``.

        Guarantees:
            ``fixed_s + per_kv_token_s * kv`` equals ``step_s`` of that step with ``kv`` summed
            context, to rounding.
        """
        return self._batch_s(num_sequences, num_sequences), self._costs.per_kv_token_s

    def _batch_s(self, num_tokens: int, num_sequences: int) -> float:
        """Seconds that depend on the batch's size but not on its contexts."""
        costs = self._costs
        dense_s = max(costs.dense_bytes_s, costs.dense_flops_s_per_token * num_tokens)
        # Expected distinct experts when every token picks its experts at random.
        experts = costs.num_experts * (1 - costs.expert_miss ** (num_tokens * costs.token_copies))
        expert_s = max(
            costs.byte_s_per_expert * experts, costs.expert_flops_s_per_token * num_tokens
        )
        return (
            costs.base_s
            + dense_s
            + expert_s
            + num_tokens * costs.collective_s_per_token
            + num_sequences * costs.per_sequence_s
        )
