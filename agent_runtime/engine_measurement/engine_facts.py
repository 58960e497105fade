"""What an engine says of itself before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass

from agent_runtime.backends.vllm_servers.engine_metrics import parse_metrics
from agent_runtime.chat_client import ChatClient
from agent_runtime.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine.

    Attributes:
        model: The name of the model it serves.
        max_context_tokens: Prompt and reply, or None where it doesn't say.
        num_kv_blocks, block_size_tokens: Of its KV, or None where it doesn't say.
    """

    model: str
    max_context_tokens: int | None
    num_kv_blocks: int | None
    block_size_tokens: int | None


async def engine_facts(client: ChatClient, model: str | None) -> EngineFacts:
    """Ask an engine for its model and its KV.

    Args:
        client: Of the engine.
        model: The one that is meant; None when it serves just one.

    Raises:
        ConfigError: It does not serve that model, or several and none was named.
        BackendError: It can't be reached.
    """
    cards = {str(card.get("id")): card for card in await client.model_cards()}
    known = ", ".join(sorted(cards)) or "none"
    if model is None and len(cards) != 1:
        raise ConfigError(f"the engine serves {known}: name one with --model")
    name = next(iter(cards)) if model is None else model
    if name not in cards:
        raise ConfigError(f"--model {name}: the engine does not serve it; it serves {known}")
    metrics = parse_metrics(await client.page("/metrics") or "")
    longest = cards[name].get("max_model_len")
    return EngineFacts(
        name,
        longest if isinstance(longest, int) else None,
        metrics.num_kv_blocks,
        metrics.block_size_tokens,
    )
