"""The body of ``/v1/chat/completions``: vLLM 0.32's and OpenAI's fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator

from agent_runtime.gateway.whole_number import Whole
from agent_runtime.gateway.wire import ServerExtras, StopString, Wire

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

MAX_CHOICES, MAX_TOP_LOGPROBS, MAX_STOPS = 128, 20, 4
"""OpenAI's limits; vLLM's own on ``n`` is 16,384."""


StopStrings: TypeAlias = Annotated[list[StopString], Field(max_length=MAX_STOPS)]
ChoiceWord: TypeAlias = Literal["none", "auto", "required"]
Retention: TypeAlias = Literal["in_memory", "in-memory", "24h"]


class ChatMessage(Wire):
    """One message; its content is checked where it is rendered."""

    role: Role
    content: Any = None


class StreamOptions(Wire):
    """What a stream carries beside text."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class FunctionParam(Wire):
    """A function the caller offers; its schema is read when it is called."""

    name: str = Field(min_length=1)
    parameters: dict[str, Any] | None = None


class ToolParam(Wire):
    """A tool the caller offers."""

    type: Literal["function"] = "function"
    function: FunctionParam


class NamedFunction(Wire):
    """Which function to call."""

    name: str


class NamedTool(Wire):
    """Which tool may be called."""

    function: NamedFunction


class AllowedTools(Wire):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"] = "auto"
    tools: list[NamedTool] = Field(min_length=1)


class ToolChoiceParam(Wire):
    """``tool_choice``; a plain word stands for an object of this type."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchemaParam(Wire):
    """``response_format.json_schema``."""

    name: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Wire):
    """What an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaParam | None = None


class StructuredOutputs(Wire):
    """vLLM's own way to say what an answer must be; exactly one of them."""

    json_schema: dict[str, Any] | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    choice: list[str] | None = Field(default=None, min_length=1)
    regex: str | None = None
    grammar: Any = None
    structural_tag: Any = None


class ChatRequest(ServerExtras):
    """The fields that change what the emulated model does, and those that are checked for it."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Whole | None = Field(default=None, ge=1)
    max_completion_tokens: Whole | None = Field(default=None, ge=1)
    n: Whole | None = Field(default=1, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: StopStrings | None = None
    include_stop_str_in_output: bool | None = False
    logprobs: bool | None = False
    top_logprobs: Whole | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    tools: list[ToolParam] | None = None
    tool_choice: ToolChoiceParam | None = None
    parallel_tool_calls: bool | None = True
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Retention | None = None

    @field_validator("stop", mode="before", json_schema_input_type=StopString | StopStrings | None)
    @classmethod
    def _one_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator(
        "tool_choice", mode="before", json_schema_input_type=ChoiceWord | ToolChoiceParam | None
    )
    @classmethod
    def _tool_choice_in_a_word(cls, value: object) -> object:
        return {"type": value} if isinstance(value, str) else value

    @property
    def output_cap(self) -> int | None:
        """The most tokens the caller wants, if it said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_top_logprobs(self) -> int | None:
        """How many tokens a position's log-probabilities are wanted of, None for none at all."""
        return (self.top_logprobs or 0) if self.logprobs else None
