"""How long one engine step takes, from sums over the batch.

Sums and not means: a batch of one 120k context and seven short ones costs what it costs. Dense
and expert weights are read once a step however many sequences share them. For a fixed decode batch
the time is affine in the summed context, which the engine's macro-stepping relies on.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.errors import ConfigError
from hw_model.specs import BF16_BYTES, ModelSpec

COLLECTIVES_PER_LAYER = 2
"""All-reduces a layer under tensor parallelism: after attention and after the MLP."""


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


class StepTimeModel:
    """Seconds per engine step of one replica at one band.

    Source:
        Roofline per component (Pope et al. 2022, section 3) plus explicit overheads; the terms and
        why each exists: docs/hardware.md.
    """

    __slots__ = (
        "_attention_s_per_pair",
        "_base_s",
        "_byte_s_per_expert",
        "_byte_s_weights",
        "_collective_s_per_token",
        "_expert_miss",
        "_flop_s_per_expert_token",
        "_flop_s_per_token",
        "_num_experts",
        "_per_kv_token_s",
        "_per_request_s",
        "_per_sequence_s",
    )

    def __init__(self, deployment: Deployment, band: Band) -> None:
        chip, model, tp = deployment.chip, deployment.model, deployment.tp
        link = deployment.rack.link_bytes_per_s or chip.link_bytes_per_s
        peak = chip.flops_per_s(deployment.precision)
        if peak is None:
            raise ConfigError(f"{chip.title} does not compute with {deployment.precision} weights")
        efficiency = chip.gemm_efficiency.at(band)
        flops_per_s = tp * peak.at(band) * efficiency
        bf16_flops_per_s = tp * chip.bf16_flops_per_s.at(band) * efficiency
        bytes_per_s = chip.hbm_bytes_per_s.at(band) * chip.hbm_efficiency.at(band)
        weight_bytes = deployment.precision.num_bytes
        layers = model.num_layers
        dense_bytes = (
            model.num_common_params * weight_bytes + model.num_embedding_params * BF16_BYTES
        )
        self._byte_s_weights = dense_bytes / tp / bytes_per_s
        self._flop_s_per_token = (
            2 * model.num_common_params / flops_per_s
            + _linear_attention_flops(model) / bf16_flops_per_s
        )
        self._num_experts, per_token = 0, 0
        if model.experts is not None:
            self._num_experts = model.experts.num_experts
            per_token = model.experts.experts_per_token
        self._byte_s_per_expert = model.num_expert_params * weight_bytes / tp / bytes_per_s
        self._flop_s_per_expert_token = 2 * per_token * model.num_expert_params / flops_per_s
        self._expert_miss = 1 - per_token / self._num_experts if self._num_experts else 1.0
        kv_layers, attention = model.num_kv_layers, model.attention
        self._attention_s_per_pair = (
            kv_layers * attention.prefill_flops_per_pair() / bf16_flops_per_s
        )
        self._per_kv_token_s = max(
            deployment.kv_bytes_per_token / bytes_per_s,
            kv_layers * attention.decode_flops_per_pair() / bf16_flops_per_s,
        )
        state_bytes = 2 * model.state_bytes_per_sequence() / tp  # read and written each step
        self._per_sequence_s = (
            chip.sequence_overhead_s.at(band)
            + 2 * model.num_embedding_params / bf16_flops_per_s
            + state_bytes / bytes_per_s
        )
        self._per_request_s = chip.request_overhead_s.at(band)
        collectives = layers * COLLECTIVES_PER_LAYER if tp > 1 else 0
        ring_bytes = model.hidden_size * BF16_BYTES * 2 * (tp - 1) / tp
        self._collective_s_per_token = collectives * ring_bytes / link.at(band)
        self._base_s = (
            chip.step_overhead_s.at(band)
            + layers * chip.layer_overhead_s.at(band)
            + model.num_expert_layers * chip.expert_layer_overhead_s.at(band)
            + collectives * chip.all_reduce_latency_s.at(band)
        )

    def step_s(self, shape: StepShape) -> float:
        """Return the seconds of one step, > 0 and non-decreasing in every field of ``shape``."""
        return (
            self._batch_s(shape.num_tokens, shape.num_sequences)
            + shape.num_new_requests * self._per_request_s
            + shape.kv_read_tokens * self._per_kv_token_s
            + shape.prefill_pairs * self._attention_s_per_pair
        )

    def decode_line(self, num_sequences: int) -> tuple[float, float]:
        """Return ``(fixed_s, per_kv_token_s)`` of a pure decode step of ``num_sequences``.

        Guarantees:
            ``fixed_s + per_kv_token_s * kv`` equals ``step_s`` of that step with ``kv`` summed
            context, to rounding.
        """
        return self._batch_s(num_sequences, num_sequences), self._per_kv_token_s

    def _batch_s(self, num_tokens: int, num_sequences: int) -> float:
        """Seconds that depend on the batch's size but not on its contexts."""
        dense_s = max(self._byte_s_weights, self._flop_s_per_token * num_tokens)
        # Expected distinct experts when every token picks experts_per_token at random.
        experts = self._num_experts * (1 - self._expert_miss**num_tokens)
        expert_s = max(
            self._byte_s_per_expert * experts, self._flop_s_per_expert_token * num_tokens
        )
        return (
            self._base_s
            + dense_s
            + expert_s
            + num_tokens * self._collective_s_per_token
            + num_sequences * self._per_sequence_s
        )


def _linear_attention_flops(model: ModelSpec) -> int:
    """FLOPs of one token in the linear-attention layers beyond their projections."""
    linear = model.linear_attention
    return 0 if linear is None else linear.num_layers * linear.flops_per_token()
