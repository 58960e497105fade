"""The body of ``/v1/completions``: vLLM 0.32's and OpenAI's fields."""

from __future__ import annotations

from pydantic import Field, field_validator

from agent_runtime.gateway.dialects.chat_wire import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    ResponseFormat,
    Retention,
    StopStrings,
    StreamOptions,
    StructuredOutputs,
)
from agent_runtime.gateway.whole_number import Whole
from agent_runtime.gateway.wire import ServerExtras, StopString

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 128


class CompletionRequest(ServerExtras):
    """The fields that change what the emulated model does, and those that are checked for it."""

    prompt: str | list[int] | list[str] | list[list[int]]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Whole | None = Field(default=DEFAULT_MAX_TOKENS, ge=1)
    n: Whole | None = Field(default=1, ge=1, le=MAX_CHOICES)
    best_of: Whole | None = Field(default=None, ge=1)
    echo: bool | None = False
    suffix: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: StopStrings | None = None
    include_stop_str_in_output: bool | None = False
    logprobs: Whole | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Retention | None = None

    @field_validator("stop", mode="before", json_schema_input_type=StopString | StopStrings | None)
    @classmethod
    def _one_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value
