"""Kinds of attention: what each keeps per token, and what a query costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]


class _Attention(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupedQueryAttention(_Attention):
    """Queries share key and value heads; ``gated`` adds an output gate as wide as the queries.

    KV heads are split over a TP group; with more chips than heads they are replicated.
    """

    kind: Literal["gqa"] = "gqa"
    num_q_heads: Count
    num_kv_heads: Count
    head_dim: Count
    gated: bool = False

    def num_params(self, hidden_size: int) -> int:
        """Return the weights of one layer's projections."""
        q_size, kv_size = self.num_q_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return hidden_size * (q_size * (3 if self.gated else 2) + 2 * kv_size)

    def kv_values_per_token(self, tp: int) -> int:
        """Return the cached values of one token in one layer on each chip of a TP group."""
        return 2 * -(-self.num_kv_heads // tp) * self.head_dim

    def prefill_flops_per_pair(self) -> int:
        """Return the FLOPs of one query token against one key token in one layer, all heads."""
        return 4 * self.num_q_heads * self.head_dim

    def decode_flops_per_pair(self) -> int:
        """Return the same when decoding."""
        return self.prefill_flops_per_pair()


class LatentAttention(_Attention):
    """MLA: one compressed vector a token for all heads, replicated on every chip of a TP group.

    Prefill expands keys and values; decoding works on the compressed ones (the absorbed form).
    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.
    """

    kind: Literal["mla"]
    num_q_heads: Count
    q_rank: Count
    kv_rank: Count
    nope_dim: Count
    rope_dim: Count
    v_dim: Count

    def num_params(self, hidden_size: int) -> int:
        """Return the weights of one layer's projections."""
        heads, qk_dim = self.num_q_heads, self.nope_dim + self.rope_dim
        queries = self.q_rank * (hidden_size + heads * qk_dim)
        compress = hidden_size * (self.kv_rank + self.rope_dim)
        expand = self.kv_rank * heads * (self.nope_dim + self.v_dim)
        return queries + compress + expand + heads * self.v_dim * hidden_size

    def kv_values_per_token(self, tp: int) -> int:  # noqa: ARG002 - replicated whatever the TP
        """Return the cached values of one token in one layer on each chip of a TP group."""
        return self.kv_rank + self.rope_dim

    def prefill_flops_per_pair(self) -> int:
        """Return the FLOPs of one query token against one key token in one layer, all heads."""
        return 2 * self.num_q_heads * (self.nope_dim + self.rope_dim + self.v_dim)

    def decode_flops_per_pair(self) -> int:
        """Return the same when decoding."""
        return 2 * self.num_q_heads * (2 * self.kv_rank + self.rope_dim)


Attention = Annotated[GroupedQueryAttention | LatentAttention, Field(discriminator="kind")]


class SlidingWindow(_Attention):
    """Layers whose attention looks at the newest tokens only, so their KV stops growing.

    Attributes:
        num_layers: How many of the layers with KV.
        window_tokens: Each looks so far back.
    """

    num_layers: Count
    window_tokens: Count


class LinearAttention(_Attention):
    """Gated delta-rule layers: a state of fixed size a sequence instead of KV a token.

    Source: Gated DeltaNet, arXiv 2412.06464; sizes as in Qwen3-Next's config.
    """

    num_layers: Count
    num_k_heads: Count
    num_v_heads: Count
    head_dim: Count
    conv_width: Count = 4

    def num_params(self, hidden_size: int) -> int:
        """Return the weights of one layer's projections."""
        keys, values = self.num_k_heads * self.head_dim, self.num_v_heads * self.head_dim
        return hidden_size * (2 * keys + 3 * values + 2 * self.num_v_heads)

    def state_bytes(self) -> int:
        """Return the recurrent state of one sequence in all these layers: FP32, conv in BF16."""
        recurrent = self.num_v_heads * self.head_dim * self.head_dim * 4
        channels = (2 * self.num_k_heads + self.num_v_heads) * self.head_dim
        return self.num_layers * (recurrent + channels * (self.conv_width - 1) * 2)

    def flops_per_token(self) -> int:
        """Return the FLOPs of one token's state update and read-out in one layer."""
        return 6 * self.num_v_heads * self.head_dim * self.head_dim
