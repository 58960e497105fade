"""The answer of ``/v1/chat/completions`` in one piece, in vLLM 0.32's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_runtime.emulated_model.reply import Reply
from agent_runtime.emulated_model.token_logprobs import token_logprobs
from agent_runtime.gateway.dialects.openai_objects import ObjectHead

_NOT_SAID = {"refusal": None, "annotations": None, "audio": None, "function_call": None}


def whole_answer(
    head: ObjectHead,
    replies: Sequence[Reply],
    usage: dict[str, Any],
    num_top_logprobs: int | None,
) -> dict[str, Any]:
    """Return the answer with all its choices."""
    choices = [_choice(index, reply, num_top_logprobs) for index, reply in enumerate(replies)]
    return {**head.of("chat.completion"), "choices": choices, "usage": usage}


def _choice(index: int, reply: Reply, num_top_logprobs: int | None) -> dict[str, Any]:
    logprobs = None
    if num_top_logprobs is not None:
        logprobs = {"content": token_logprobs(reply, 0, reply.num_tokens, num_top_logprobs)}
    return {
        "index": index,
        "message": {**_NOT_SAID, **reply.message(), "reasoning": None},
        "logprobs": logprobs,
        "finish_reason": reply.finish_reason,
        "stop_reason": reply.stop_reason,
    }
