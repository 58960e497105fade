"""The body of ``/v1/completions``: vLLM 0.32's and OpenAI's fields."""

from __future__ import annotations

from pydantic import Field, field_validator

from agent_runtime.gateway.dialects.chat_wire import (
    MAX_CHOICES,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
    ResponseFormat,
    StreamOptions,
    StructuredOutputs,
)
from agent_runtime.gateway.wire import ServerExtras

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 128


class CompletionRequest(ServerExtras):
    """The fields that change what the emulated model does, and those that are checked for it."""

    prompt: str | list[int] | list[str] | list[list[int]]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=DEFAULT_MAX_TOKENS, ge=1)
    n: int | None = Field(default=1, ge=1, le=MAX_CHOICES)
    best_of: int | None = Field(default=None, ge=1)
    echo: bool | None = False
    suffix: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: list[str] | None = Field(default=None, max_length=MAX_STOPS)
    include_stop_str_in_output: bool | None = False
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and "" in value:
            raise ValueError("an empty string can't be a stop string")
        return value
