"""``/v1/chat/completions`` as it crosses the wire: vLLM 0.32's and OpenAI's fields."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_runtime.errors import InvalidRequestError

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class _Wire(BaseModel):
    # Unknown fields are accepted, as vLLM does: clients send more than any server knows.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class ChatMessage(_Wire):
    """One message; its content is checked where it is rendered."""

    role: Role
    content: Any = None


class StreamOptions(_Wire):
    """What a stream carries beside text."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class ChatRequest(_Wire):
    """The fields that change what the emulated model does, and those that are checked for it."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = False
    n: int | None = Field(default=1, ge=1, le=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    tools: list[dict[str, Any]] | None = None
    session_id: str | None = None

    @property
    def output_cap(self) -> int | None:
        """The most tokens the caller wants, if it said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def parse_chat_request(body: bytes) -> ChatRequest:
    """Read a request's body.

    Raises:
        InvalidRequestError: Not JSON, or a field that is not what it must be; names it.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        ).lstrip(".")
        message = f"{param}: {first['msg']}" if param else first["msg"]
        raise InvalidRequestError(message, param=param or None) from error


def usage(num_prompt: int, num_output: int, num_cached: int) -> dict[str, Any]:
    """Return the ``usage`` object; cached tokens as vLLM reports them."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_output,
        "total_tokens": num_prompt + num_output,
        "prompt_tokens_details": {"cached_tokens": num_cached},
    }


class ChatAnswer:
    """Builds the objects of one answer, whole or in chunks."""

    __slots__ = ("_common",)

    def __init__(self, answer_id: str, created: int, model: str) -> None:
        self._common = {"id": answer_id, "created": created, "model": model}

    def whole(self, text: str, finish_reason: str, usage: dict[str, Any]) -> dict[str, Any]:
        """Return the answer in one piece."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return {**self._common, "object": "chat.completion", "choices": [choice], "usage": usage}

    def chunk(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        usage: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return a chunk with a delta."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._chunk([choice], usage)

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return the chunk that closes a stream with ``include_usage``."""
        return self._chunk([], usage)

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        chunk = {**self._common, "object": "chat.completion.chunk", "choices": choices}
        return chunk if usage is None else {**chunk, "usage": usage}
