"""The body of ``/v1/responses``: OpenAI's fields, and this server's own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from agent_runtime.gateway.dialects.chat_wire import MAX_TOP_LOGPROBS, Retention
from agent_runtime.gateway.whole_number import Whole
from agent_runtime.gateway.wire import ServerExtras, Wire


class ResponseTool(Wire):
    """A tool; those of other types than ``function`` run at the provider, and are not called."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ResponseToolChoice(Wire):
    """``tool_choice``; a plain word stands for an object of this type."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[dict[str, Any]] | None = None


class TextFormat(Wire):
    """What an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class TextConfig(Wire):
    """How an answer is written; ``verbosity`` changes nothing."""

    format: TextFormat | None = None


class ResponsesRequest(ServerExtras):
    """The fields that change what the emulated model does, and those that are checked for it."""

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    model: str | None = None
    stream: bool | None = False
    store: bool | None = True
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = False
    max_output_tokens: Whole | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: Whole | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[str] | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = True
    text: TextConfig | None = None
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Retention | None = None

    @field_validator(
        "tool_choice", mode="before", json_schema_input_type=str | ResponseToolChoice | None
    )
    @classmethod
    def _tool_choice_in_a_word(cls, value: object) -> object:
        return {"type": value} if isinstance(value, str) else value

    @property
    def num_top_logprobs(self) -> int | None:
        """How many tokens a position's log-probabilities are wanted of, None for none at all."""
        if "message.output_text.logprobs" not in (self.include or ()):
            return None
        return self.top_logprobs or 0
