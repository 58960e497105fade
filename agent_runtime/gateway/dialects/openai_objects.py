"""What chat completions and text completions have in common on the wire, in vLLM 0.32's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import TurnUsage
from agent_runtime.gateway.error_mapping import http_error

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ObjectHead:
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


def usage_object(used: TurnUsage) -> dict[str, Any]:
    """Return the ``usage`` object; cached tokens as vLLM reports them."""
    return {
        "prompt_tokens": used.num_prompt,
        "completion_tokens": used.num_output,
        "total_tokens": used.num_prompt + used.num_output,
        "prompt_tokens_details": {"cached_tokens": used.num_cached},
    }


def broken_stream(error: RequestError | BackendError) -> bytes:
    """Return how a stream ends that broke: the error, then the end."""
    return b"data: " + _encode(http_error(error).openai_body) + b"\n\n" + DONE
