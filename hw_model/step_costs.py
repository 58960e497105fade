"""What each thing in a step costs on one replica: the coefficients of the step time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from hw_model.claim import Band
from hw_model.collectives import AffineCost, Fabric
from hw_model.deployment import Deployment
from hw_model.errors import ConfigError
from hw_model.specs import BF16_BYTES, ModelSpec, Precision

EXPERT_IMBALANCE = 1.25
"""Tokens of the busiest chip over the mean chip's where experts are whole: assumed, from the 80 %
that load balancers of experts aim at. Experts cut into slices are level by construction."""

EXPERT_COLUMNS = 768
"""Columns of an expert on a chip that ``ChipSpec.expert_gemm_flops_per_s`` is for."""

DISPATCH_BYTES, COMBINE_BYTES = 1.0, BF16_BYTES
"""A hidden value on its way to an expert (FP8) and back, as DeepEP sends them."""


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Coefficients of one replica's step time at one band; docs/hardware.md has the sum.

    Attributes:
        base_s: Every step, whatever it computes.
        dense_bytes_s: Reading all weights but the experts'.
        dense_flops_s_per_token: Computing with them.
        num_experts: In a layer; 0 without.
        expert_miss: Chance that a token does not pick a given expert.
        token_copies: Tokens of a step that pick experts, per token of this replica: its group's.
        byte_s_per_expert: Reading one expert of every layer.
        expert_flops_s_per_token: Computing one token's experts.
        collective_s_per_token: Bytes on the links; latencies are in ``base_s``.
        per_sequence_s: Sampling, the output matrix, states and windows of fixed size.
        per_kv_token_s: A context token that attention reads.
        per_prefill_pair_s: A query-key pair of a prefill chunk.
        per_request_s: A request that runs for the first time.
        least_prefill_s: A step with a prompt, requests aside.
    """

    base_s: float
    dense_bytes_s: float
    dense_flops_s_per_token: float
    num_experts: int
    expert_miss: float
    token_copies: int
    byte_s_per_expert: float
    expert_flops_s_per_token: float
    collective_s_per_token: float
    per_sequence_s: float
    per_kv_token_s: float
    per_prefill_pair_s: float
    per_request_s: float
    least_prefill_s: float

    @classmethod
    def of(cls, deployment: Deployment, band: Band) -> Self:
        """Return the costs of a deployment's replica.

        Raises:
            ConfigError: The chip does not compute with such weights.
        """
        chip, model, spread = deployment.chip, deployment.model, deployment.parallelism
        rates = _Rates.of(deployment, band)
        exchange = _exchange(deployment, band)
        weight_bytes = deployment.precision.num_bytes
        dense_bytes = (
            model.num_common_params * weight_bytes / rates.dense_share
            + model.num_embedding_params * BF16_BYTES
        )
        experts = model.experts
        per_token = 0 if experts is None else experts.experts_per_token
        imbalance = EXPERT_IMBALANCE if spread.ep > 1 else 1.0
        expert_bytes_s = model.num_expert_params * weight_bytes / rates.bytes_per_s
        expert_flops_s = 2 * per_token * model.num_expert_params / rates.expert_flops_per_s
        return cls(
            base_s=(
                chip.step_overhead_s.at(band)
                + model.num_layers * chip.layer_overhead_s.at(band)
                + model.num_expert_layers * chip.expert_layer_overhead_s.at(band)
                + exchange.latency_s
            ),
            dense_bytes_s=dense_bytes / spread.tp / rates.bytes_per_s,
            dense_flops_s_per_token=(
                2 * model.num_common_params / rates.dense_flops_per_s
                + _linear_attention_flops(model) / rates.bf16_flops_per_s
                + _window_pairs(model)
                * model.attention.prefill_flops_per_pair()
                / rates.attention_flops_per_s
            ),
            num_experts=0 if experts is None else experts.num_experts,
            expert_miss=1.0 if experts is None else 1 - per_token / experts.num_experts,
            token_copies=spread.group_replicas,
            byte_s_per_expert=expert_bytes_s * imbalance / spread.expert_chips,
            expert_flops_s_per_token=expert_flops_s * imbalance,
            collective_s_per_token=exchange.s_per_byte,
            per_sequence_s=_per_sequence_s(deployment, band, rates),
            per_kv_token_s=_per_kv_token_s(deployment, rates),
            per_prefill_pair_s=(
                model.num_full_kv_layers
                * model.attention.prefill_flops_per_pair()
                / rates.attention_flops_per_s
            ),
            per_request_s=chip.request_overhead_s.at(band),
            least_prefill_s=model.num_layers * chip.prefill_layer_overhead_s.at(band),
        )


@dataclass(frozen=True, slots=True)
class _Rates:
    """What a TP group's chips reach: FLOPS of all of them, bytes a second of each.

    Attributes:
        dense_share: What dense GEMMs with these weights reach as a share of wider ones.
    """

    dense_flops_per_s: float
    expert_flops_per_s: float
    bf16_flops_per_s: float
    attention_flops_per_s: float
    bytes_per_s: float
    kv_bytes_per_s: float
    dense_share: float

    @classmethod
    def of(cls, deployment: Deployment, band: Band) -> Self:
        """Return the rates of a deployment at one band.

        Raises:
            ConfigError: The chip does not compute with such weights.
        """
        chip, precision, tp = deployment.chip, deployment.precision, deployment.parallelism.tp
        peak = chip.flops_per_s(precision)
        if peak is None:
            raise ConfigError(f"{chip.title} does not compute with {precision} weights")
        share = chip.fp4_kernel_efficiency if precision is Precision.FP4 else None
        dense_share = 1.0 if share is None else share.at(band)
        flops_per_s = tp * peak.at(band)
        bf16_flops_per_s = tp * chip.bf16_flops_per_s.at(band)
        efficiency = chip.gemm_efficiency.at(band)
        kv_efficiency = chip.kv_read_efficiency or chip.hbm_efficiency
        return cls(
            dense_flops_per_s=flops_per_s * efficiency * dense_share,
            expert_flops_per_s=min(
                flops_per_s * efficiency, tp * _expert_flops_per_s(deployment, band)
            ),
            bf16_flops_per_s=bf16_flops_per_s * efficiency,
            attention_flops_per_s=bf16_flops_per_s * chip.attention_efficiency.at(band),
            bytes_per_s=chip.hbm_bytes_per_s.at(band) * chip.hbm_efficiency.at(band),
            kv_bytes_per_s=chip.hbm_bytes_per_s.at(band) * kv_efficiency.at(band),
            dense_share=dense_share,
        )


def _expert_flops_per_s(deployment: Deployment, band: Band) -> float:
    """Return what a chip reaches in experts' GEMMs: with the root of an expert's columns on it.

    Source:
        GEMMs of 256 rows on H100 gain with the power 0.8 of their columns up to 2,048, in FP8 as
        in BF16 (aiconfigurator kernel tables); MiniMax-M2.5 at TP1 to TP8 on B200 and H200 with
        about 0.5.
    """
    model, spread = deployment.model, deployment.parallelism
    if model.experts is None:
        return math.inf
    columns = model.experts.ffn_size / (1 if spread.ep > 1 else spread.tp)
    return deployment.chip.expert_gemm_flops_per_s.at(band) * math.sqrt(columns / EXPERT_COLUMNS)


def _exchange(deployment: Deployment, band: Band) -> AffineCost:
    """Return what a step's collectives take: all latencies, and seconds a token.

    All-reduces after attention and after the MLP of every layer. Where replicas share experts, a
    token goes to its experts' chips and back instead; each chip of a TP group sends a share.
    """
    model, spread = deployment.model, deployment.parallelism
    fabric = Fabric.of(deployment.chip, deployment.rack, band)
    hidden_bytes = model.hidden_size * BF16_BYTES
    reduce, hand_over = fabric.all_reduce(spread.tp), fabric.send()
    shared_layers = model.num_expert_layers if spread.group_replicas > 1 else 0
    reduces, hops = 2 * model.num_layers - shared_layers, spread.pp - 1
    latency_s = reduces * reduce.latency_s + hops * hand_over.latency_s
    per_token_s = (reduces * reduce.s_per_byte + hops * hand_over.s_per_byte) * hidden_bytes
    if shared_layers and model.experts is not None:
        exchange = fabric.all_to_all(spread.ep)
        copies = model.experts.experts_per_token / spread.tp
        both_ways = copies * model.hidden_size * (DISPATCH_BYTES + COMBINE_BYTES)
        latency_s += 2 * shared_layers * exchange.latency_s
        per_token_s += shared_layers * both_ways * exchange.s_per_byte
    return AffineCost(latency_s, per_token_s)


def _per_kv_token_s(deployment: Deployment, rates: _Rates) -> float:
    """The slower of reading a context token's KV and computing with it, in all layers."""
    model = deployment.model
    kv_bytes = model.kv_bytes_per_token(deployment.parallelism.tp, deployment.kv_precision)
    flops = model.num_full_kv_layers * model.attention.decode_flops_per_pair()
    return max(kv_bytes / rates.kv_bytes_per_s, flops / rates.attention_flops_per_s)


def _per_sequence_s(deployment: Deployment, band: Band, rates: _Rates) -> float:
    model = deployment.model
    moved_bytes = model.moved_state_bytes_per_sequence() / deployment.parallelism.tp
    return (
        deployment.chip.sequence_overhead_s.at(band)
        + 2 * model.num_embedding_params / rates.bf16_flops_per_s
        + moved_bytes / rates.bytes_per_s
    )


def _linear_attention_flops(model: ModelSpec) -> int:
    """FLOPs of one token in the linear-attention layers beyond their projections."""
    linear = model.linear_attention
    return 0 if linear is None else linear.num_layers * linear.flops_per_token()


def _window_pairs(model: ModelSpec) -> int:
    """Query-key pairs of one prefill token in the layers with a sliding window, at most."""
    window = model.sliding_window
    return 0 if window is None else window.num_layers * window.window_tokens
