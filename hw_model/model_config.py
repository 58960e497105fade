"""A model's sizes from what its publisher ships: ``config.json`` of the Hugging Face form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hw_model.attention import Attention, GroupedQueryAttention, LatentAttention
from hw_model.errors import ConfigError
from hw_model.specs import MixtureOfExperts, ModelSpec

NOT_REPRESENTED = ("linear_num_value_heads", "mamba_d_state", "ssm_state_size", "index_topk")
"""Keys of kinds of layers that a config.json alone does not say enough about."""

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def model_from_config(config: Mapping[str, Any], *, name: str, source: str) -> ModelSpec:
    """Return the model that a configuration describes.

    Args:
        config: As parsed; ``text_config`` inside it wins, for models that also see.
        name: Of the model in the catalog.
        source: Of its sizes.

    Raises:
        ConfigError: A size is missing or impossible, or a kind of layer is not represented; names
            the key.
    """
    sizes = _Sizes(config.get("text_config") or config, source)
    strange = next((key for key in NOT_REPRESENTED if sizes.get(key)), None)
    if strange is not None:
        raise ConfigError(
            f"{source}: {strange}: such layers can't be read from a config; write the model as "
            "[models.NAME] into a file for --catalog (docs/hardware.md)"
        )
    if sizes.get("use_sliding_window", bool(sizes.get("sliding_window"))):
        raise ConfigError(
            f"{source}: sliding_window: which layers have one can't be read from every config; "
            "write the model as [models.NAME] into a file for --catalog (docs/hardware.md)"
        )
    try:
        experts = _experts(sizes)
        return ModelSpec(
            name=name,
            title=name,
            num_layers=sizes.count("num_hidden_layers"),
            hidden_size=sizes.count("hidden_size"),
            attention=_attention(sizes),
            dense_ffn_size=_dense_ffn_size(sizes, experts),
            num_dense_layers=_num_dense_layers(sizes) if experts is not None else 0,
            experts=experts,
            vocab_size=sizes.count("vocab_size"),
            tied_embeddings=bool(sizes.get("tie_word_embeddings", False)),
            trained_context_tokens=sizes.count("max_position_embeddings"),
            source=source,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{source}: {field}: {first['msg']}") from error


class _Sizes:
    """The configuration; says which key is missing."""

    def __init__(self, config: object, source: str) -> None:
        if not isinstance(config, Mapping):
            raise ConfigError(f"{source}: expected an object of sizes")
        self._config = config
        self._source = source

    def get(self, key: str, default: object = None) -> object:
        value = self._config.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"{self._source}: {key}: expected a whole number, got {value!r}")
        return value


def _attention(sizes: _Sizes) -> Attention:
    num_heads = sizes.count("num_attention_heads")
    if sizes.get("kv_lora_rank"):
        nope = sizes.count("qk_nope_head_dim")
        return LatentAttention(
            kind="mla",
            num_q_heads=num_heads,
            q_rank=sizes.count("q_lora_rank", sizes.count("hidden_size")),
            kv_rank=sizes.count("kv_lora_rank"),
            nope_dim=nope,
            rope_dim=sizes.count("qk_rope_head_dim"),
            v_dim=sizes.count("v_head_dim", nope),
        )
    return GroupedQueryAttention(
        num_q_heads=num_heads,
        num_kv_heads=sizes.count("num_key_value_heads", num_heads),
        head_dim=sizes.count("head_dim", sizes.count("hidden_size") // max(1, num_heads)),
    )


def _experts(sizes: _Sizes) -> MixtureOfExperts | None:
    key = next((key for key in EXPERT_COUNTS if sizes.get(key)), None)
    if key is None:
        return None
    ffn_size = sizes.count("moe_intermediate_size", sizes.count("intermediate_size", 0))
    num_shared = sizes.count("n_shared_experts", 0)
    return MixtureOfExperts(
        num_experts=sizes.count(key),
        experts_per_token=sizes.count("num_experts_per_tok"),
        ffn_size=ffn_size,
        shared_ffn_size=sizes.count("shared_expert_intermediate_size", num_shared * ffn_size),
    )


def _num_dense_layers(sizes: _Sizes) -> int:
    return sizes.count("first_k_dense_replace", 0)


def _dense_ffn_size(sizes: _Sizes, experts: MixtureOfExperts | None) -> int:
    if experts is None:
        return sizes.count("intermediate_size")
    return sizes.count("intermediate_size", 0) if _num_dense_layers(sizes) else 0
