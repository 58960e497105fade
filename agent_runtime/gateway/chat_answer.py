"""The answer of ``/v1/chat/completions`` in one piece, in vLLM 0.32's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.emulated_model.reply import Reply
from agent_runtime.emulated_model.token_logprobs import token_logprobs

_NOT_SAID = {"refusal": None, "annotations": None, "audio": None, "function_call": None}


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every object of one answer begins with.

    Attributes:
        answer_id: Of the answer.
        created: Seconds since 1970.
        model: The name it is served under.
    """

    answer_id: str
    created: int
    model: str

    def of(self, kind: str) -> dict[str, Any]:
        """Return the members that an object of this kind begins with."""
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def whole_answer(
    head: AnswerHead,
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
