"""Chips, racks and models as facts. Everything derived here is arithmetic on those facts."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_model.attention import Attention, LinearAttention, SlidingWindow
from hw_model.claim import Claim

BF16_BYTES = 2.0


class Precision(StrEnum):
    """How weights or KV entries are stored."""

    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"
    FP4 = "fp4"

    @property
    def num_bytes(self) -> float:
        """Bytes per value; the scales of block formats (MXFP4: 6 %) are not counted."""
        sizes = {Precision.BF16: 2.0, Precision.FP8: 1.0, Precision.INT8: 1.0, Precision.FP4: 0.5}
        return sizes[self]


class Spec(BaseModel):
    """Something in the catalog.

    Attributes:
        name: Its key, as a user types it.
        title: Its name, as people read it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str


class ChipSpec(Spec):
    """One accelerator and the software stack that drives it.

    Attributes:
        hbm_bytes: Memory of one chip.
        hbm_bytes_per_s: Peak memory bandwidth.
        bf16_flops_per_s, fp8_flops_per_s, int8_flops_per_s, fp4_flops_per_s: Peak dense matrix
            rate by *weight* precision; absent where the chip has none.
        gemm_efficiency: Reached share of the peak matrix rate in large dense GEMMs.
        expert_gemm_flops_per_s: Matrix rate reached in the grouped GEMMs of experts, each of few
            rows, with 768 columns of an expert on a chip; whatever the precision, up to what dense
            GEMMs reach.
        attention_efficiency: The same of the BF16 peak in attention.
        hbm_efficiency: Reached share of the peak memory bandwidth when streaming weights or KV.
        kv_read_efficiency: The same when attention reads the KV of a context; absent where it is
            no other.
        fp4_kernel_efficiency: What dense GEMMs with FP4 weights reach, of rate and bandwidth, as a
            share of what wider ones do; absent where the chip has no FP4.
        link_bytes_per_s: Scale-up bandwidth of one chip, one direction, as collectives of tens of
            MB reach it.
        host_link_bytes_per_s: Between one chip and its host's memory, each direction, as reached.
        all_reduce_latency_s: A small all-reduce among eight chips, launch included.
        layer_overhead_s: Per transformer layer and step: launches and latency no roofline shows.
        expert_layer_overhead_s: On top, per layer with experts: routing, gathering tokens by expert
            and starting the grouped GEMMs.
        prefill_layer_overhead_s: Per layer, the least that a step with a prompt takes: it runs
            outside the captured graphs, so the host launches its kernels one by one.
        step_overhead_s: Host time per engine step that the accelerator waits for.
        sequence_overhead_s: Sampling and bookkeeping per sequence and step.
        request_overhead_s: Host work of the engine once per request, charged to the step that first
            runs it.
        front_end_overhead_s: A request's way to the engine, as its client sees it: HTTP, template,
            tokenising, hand-over.
        front_end_token_overhead_s: On top, for every token of the prompt; absent where it isn't
            known apart.
        activation_bytes: HBM kept for activations, graphs and communication buffers.
    """

    hbm_bytes: Claim
    hbm_bytes_per_s: Claim
    bf16_flops_per_s: Claim
    fp8_flops_per_s: Claim | None = None
    int8_flops_per_s: Claim | None = None
    fp4_flops_per_s: Claim | None = None
    gemm_efficiency: Claim
    expert_gemm_flops_per_s: Claim
    attention_efficiency: Claim
    hbm_efficiency: Claim
    kv_read_efficiency: Claim | None = None
    fp4_kernel_efficiency: Claim | None = None
    link_bytes_per_s: Claim
    host_link_bytes_per_s: Claim
    all_reduce_latency_s: Claim
    layer_overhead_s: Claim
    expert_layer_overhead_s: Claim
    prefill_layer_overhead_s: Claim
    step_overhead_s: Claim
    sequence_overhead_s: Claim
    request_overhead_s: Claim
    front_end_overhead_s: Claim
    front_end_token_overhead_s: Claim | None = None
    activation_bytes: Claim

    def flops_per_s(self, precision: Precision) -> Claim | None:
        """Return the peak matrix rate with weights in ``precision``; None if not supported."""
        match precision:
            case Precision.BF16:
                return self.bf16_flops_per_s
            case Precision.FP8:
                return self.fp8_flops_per_s
            case Precision.INT8:
                return self.int8_flops_per_s
            case Precision.FP4:
                return self.fp4_flops_per_s

    def precisions(self) -> list[Precision]:
        """Return the weight precisions the chip computes with, widest first."""
        return [p for p in Precision if self.flops_per_s(p) is not None]

    def claims(self) -> dict[str, Claim]:
        """Return every number of the chip by field name, in the order of the fields."""
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in fields if isinstance(value, Claim)}


class RackSpec(Spec):
    """A rack: chips that reach each other over the scale-up fabric.

    Attributes:
        chip: Name of the chip in the catalog.
        num_chips: Chips in the rack.
        domain_chips: Chips in one switched scale-up domain; a TP group never leaves its domain.
        link_bytes_per_s: Replaces the chip's own number, for scenarios.
    """

    chip: str
    num_chips: Claim
    domain_chips: Claim
    link_bytes_per_s: Claim | None = None


class MixtureOfExperts(BaseModel):
    """The MLP of a layer with experts; shared experts serve every token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_experts: int = Field(gt=0)
    experts_per_token: int = Field(gt=0)
    ffn_size: int = Field(gt=0)
    shared_ffn_size: int = Field(default=0, ge=0)


class ModelSpec(Spec):
    """A decoder-only transformer.

    Attributes:
        num_layers: Layers, linear-attention ones included.
        hidden_size: Width of the residual stream.
        attention: Of the layers that keep KV.
        linear_attention: Of the layers that keep a state instead, if any.
        sliding_window: Of the layers with KV that keep only the newest, if any.
        dense_ffn_size: Intermediate width of dense MLPs; 0 when every layer has experts.
        num_dense_layers: Layers with a dense MLP in a model with experts.
        experts: None for a dense model.
        vocab_size: Rows of the embedding.
        tied_embeddings: Whether input and output embeddings are one matrix.
        trained_context_tokens: Longest context the publisher vouches for.
        source: Where the shape comes from, and what about the model is not represented.
        assumed: Whether the shape is a stand-in for one that is not published.
    """

    num_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    attention: Attention
    linear_attention: LinearAttention | None = None
    sliding_window: SlidingWindow | None = None
    dense_ffn_size: int = Field(default=0, ge=0)
    num_dense_layers: int = Field(default=0, ge=0)
    experts: MixtureOfExperts | None = None
    vocab_size: int = Field(gt=0)
    tied_embeddings: bool = False
    trained_context_tokens: int = Field(gt=0)
    source: str = Field(min_length=1)
    assumed: bool = False

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if self.num_full_kv_layers < 1:
            raise ValueError("linear_attention and sliding_window leave no layer with all its KV")
        if self.num_expert_layers < 0:
            raise ValueError("num_dense_layers is more than num_layers")
        if self.dense_ffn_size == 0 and self.num_expert_layers < self.num_layers:
            raise ValueError("layers without experts need a dense_ffn_size")
        return self

    @property
    def num_kv_layers(self) -> int:
        """Layers that keep KV."""
        return self.num_layers - (self.linear_attention.num_layers if self.linear_attention else 0)

    @property
    def num_full_kv_layers(self) -> int:
        """Layers that keep the KV of a whole context."""
        window = self.sliding_window
        return self.num_kv_layers - (0 if window is None else window.num_layers)

    @property
    def num_expert_layers(self) -> int:
        """Layers with experts."""
        return 0 if self.experts is None else self.num_layers - self.num_dense_layers

    @property
    def num_embedding_params(self) -> int:
        """Weights of one vocabulary matrix."""
        return self.vocab_size * self.hidden_size

    @property
    def num_expert_params(self) -> int:
        """Weights of one expert in every layer that has experts."""
        return (
            0
            if self.experts is None
            else 3 * self.hidden_size * self.experts.ffn_size * (self.num_expert_layers)
        )

    @property
    def num_common_params(self) -> int:
        """Weights that every token uses, embeddings aside: attention, shared MLPs, router."""
        attention = self.num_kv_layers * self.attention.num_params(self.hidden_size)
        if self.linear_attention is not None:
            linear = self.linear_attention
            attention += linear.num_layers * linear.num_params(self.hidden_size)
        dense_layers = self.num_layers - self.num_expert_layers
        mlp = dense_layers * 3 * self.hidden_size * self.dense_ffn_size
        if self.experts is not None:
            per_layer = 3 * self.experts.shared_ffn_size + self.experts.num_experts
            mlp += self.num_expert_layers * self.hidden_size * per_layer
        return attention + mlp

    @property
    def num_params(self) -> int:
        """All weights; norms and biases (well under 0.1 %) are not counted."""
        experts = 0 if self.experts is None else self.experts.num_experts * self.num_expert_params
        return self.num_common_params + experts + self._num_all_embedding_params

    @property
    def num_active_params(self) -> int:
        """Weights one token uses, both embeddings included."""
        experts = (
            0 if self.experts is None else self.experts.experts_per_token * self.num_expert_params
        )
        return self.num_common_params + experts + self._num_all_embedding_params

    @property
    def _num_all_embedding_params(self) -> int:
        return self.num_embedding_params * (1 if self.tied_embeddings else 2)

    def weight_bytes(self, precision: Precision) -> float:
        """Return bytes of all weights with the vocabulary matrices left in BF16."""
        embeddings = self._num_all_embedding_params
        return (self.num_params - embeddings) * precision.num_bytes + embeddings * BF16_BYTES

    def kv_bytes_per_token(self, tp: int, precision: Precision) -> float:
        """Return KV bytes of one token on *each* chip of a TP group, windows aside."""
        return (
            self.num_full_kv_layers * self.attention.kv_values_per_token(tp) * precision.num_bytes
        )

    def state_bytes_per_sequence(self) -> float:
        """Return what one sequence keeps however long it is, over the whole TP group.

        Recurrent states, and the KV inside sliding windows, in BF16.
        """
        recurrent = 0 if self.linear_attention is None else self.linear_attention.state_bytes()
        return recurrent + self._window_bytes

    def moved_state_bytes_per_sequence(self) -> float:
        """Return what a step moves of that: states are read and written, windows read."""
        recurrent = 0 if self.linear_attention is None else self.linear_attention.state_bytes()
        return 2 * recurrent + self._window_bytes

    @property
    def _window_bytes(self) -> float:
        window = self.sliding_window
        if window is None:
            return 0.0
        values = self.attention.kv_values_per_token(tp=1) * window.num_layers
        return window.window_tokens * values * BF16_BYTES
