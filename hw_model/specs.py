"""Chips, racks and models as facts. Everything derived here is arithmetic on those facts."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from hw_model.claim import Claim

BF16_BYTES = 2.0


class Precision(StrEnum):
    """How weights or KV entries are stored."""

    BF16 = "bf16"
    FP8 = "fp8"
    FP4 = "fp4"

    @property
    def num_bytes(self) -> float:
        """Bytes per value; the scales of block formats (1-6 %) are not counted."""
        return {Precision.BF16: 2.0, Precision.FP8: 1.0, Precision.FP4: 0.5}[self]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str


class ChipSpec(_Spec):
    """One accelerator and the software stack that drives it.

    Attributes:
        hbm_bytes: Memory of one chip.
        hbm_bytes_per_s: Peak memory bandwidth.
        bf16_flops_per_s, fp8_flops_per_s, fp4_flops_per_s: Peak dense matrix rate by *weight*
            precision; absent where the chip has none.
        gemm_efficiency: Reached share of the peak matrix rate in large GEMMs and attention.
        hbm_efficiency: Reached share of the peak memory bandwidth when streaming weights or KV.
        link_bytes_per_s: Scale-up bandwidth of one chip, one direction, as reached.
        all_reduce_latency_s: A small all-reduce inside a TP group, launch included.
        layer_overhead_s: Per transformer layer and step: launches and latency no roofline shows.
        step_overhead_s: Host time per engine step that the accelerator waits for.
        sequence_overhead_s: Sampling and bookkeeping per sequence and step.
        request_overhead_s: Host work once per request (tokenise, admit), charged to the step that
            first runs it.
        activation_bytes: HBM kept for activations, graphs and communication buffers.
    """

    hbm_bytes: Claim
    hbm_bytes_per_s: Claim
    bf16_flops_per_s: Claim
    fp8_flops_per_s: Claim | None = None
    fp4_flops_per_s: Claim | None = None
    gemm_efficiency: Claim
    hbm_efficiency: Claim
    link_bytes_per_s: Claim
    all_reduce_latency_s: Claim
    layer_overhead_s: Claim
    step_overhead_s: Claim
    sequence_overhead_s: Claim
    request_overhead_s: Claim
    activation_bytes: Claim

    def flops_per_s(self, precision: Precision) -> Claim | None:
        """Return the peak matrix rate with weights in ``precision``; None if not supported."""
        match precision:
            case Precision.BF16:
                return self.bf16_flops_per_s
            case Precision.FP8:
                return self.fp8_flops_per_s
            case Precision.FP4:
                return self.fp4_flops_per_s

    def precisions(self) -> list[Precision]:
        """Return the weight precisions the chip computes with, widest first."""
        return [p for p in Precision if self.flops_per_s(p) is not None]

    def claims(self) -> dict[str, Claim]:
        """Return every number of the chip by field name, in the order of the fields."""
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in fields if isinstance(value, Claim)}


class RackSpec(_Spec):
    """A rack: chips that reach each other over the scale-up fabric.

    Attributes:
        chip: Name of the chip in the catalog.
        num_chips: Chips in the rack.
        domain_chips: Chips in one switched scale-up domain; a TP group never leaves its domain.
    """

    chip: str
    num_chips: Claim
    domain_chips: Claim


class ModelSpec(_Spec):
    """A decoder-only transformer with grouped-query attention, dense or mixture of experts.

    Attributes:
        num_layers: Transformer layers.
        hidden_size: Width of the residual stream.
        num_q_heads, num_kv_heads, head_dim: Attention shape.
        ffn_size: Intermediate width of a dense MLP; 0 when every layer is MoE.
        num_experts, experts_per_token, expert_ffn_size: MoE shape; 0 for a dense model.
        vocab_size: Rows of the embedding.
        tied_embeddings: Whether input and output embeddings are one matrix.
        trained_context_tokens: Longest context the publisher vouches for.
        source: Where the shape comes from.
    """

    num_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_q_heads: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    ffn_size: int = Field(default=0, ge=0)
    num_experts: int = Field(default=0, ge=0)
    experts_per_token: int = Field(default=0, ge=0)
    expert_ffn_size: int = Field(default=0, ge=0)
    vocab_size: int = Field(gt=0)
    tied_embeddings: bool = False
    trained_context_tokens: int = Field(gt=0)
    source: str = Field(min_length=1)

    @property
    def dense_params_per_layer(self) -> int:
        """Weights of a layer that every token uses: attention, dense MLP, router."""
        q_size, kv_size = self.num_q_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (2 * q_size + 2 * kv_size)
        router = self.hidden_size * self.num_experts
        return attention + 3 * self.hidden_size * self.ffn_size + router

    @property
    def params_per_expert(self) -> int:
        """Weights of one expert in one layer."""
        return 3 * self.hidden_size * self.expert_ffn_size

    @property
    def embedding_params(self) -> int:
        """Weights of one vocabulary matrix."""
        return self.vocab_size * self.hidden_size

    @property
    def num_params(self) -> int:
        """All weights; norms and biases (well under 0.1 %) are not counted."""
        per_layer = self.dense_params_per_layer + self.num_experts * self.params_per_expert
        embeddings = self.embedding_params * (1 if self.tied_embeddings else 2)
        return self.num_layers * per_layer + embeddings

    @property
    def num_active_params(self) -> int:
        """Weights one token uses, both embeddings included."""
        per_layer = self.dense_params_per_layer + self.experts_per_token * self.params_per_expert
        embeddings = self.embedding_params * (1 if self.tied_embeddings else 2)
        return self.num_layers * per_layer + embeddings

    def weight_bytes(self, precision: Precision) -> float:
        """Return bytes of all weights with the vocabulary matrices left in BF16."""
        embeddings = self.embedding_params * (1 if self.tied_embeddings else 2)
        return (self.num_params - embeddings) * precision.num_bytes + embeddings * BF16_BYTES

    def kv_bytes_per_token(self, tp: int, precision: Precision) -> float:
        """Return KV bytes of one token on *each* chip of a TP group.

        KV heads are split over the group; with more chips than KV heads they are replicated.
        """
        heads_per_chip = -(-self.num_kv_heads // tp)
        return 2 * self.num_layers * heads_per_chip * self.head_dim * precision.num_bytes
