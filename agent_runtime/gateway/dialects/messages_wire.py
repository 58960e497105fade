"""The body of ``/v1/messages``: Anthropic's fields, and this server's own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from agent_runtime.gateway.whole_number import Whole
from agent_runtime.gateway.wire import ServerExtras, StopString, Wire


class CacheControl(Wire):
    """Where the prompt is to be cached up to, and for how long."""

    type: Literal["ephemeral"] = "ephemeral"
    ttl: Literal["5m", "1h"] = "5m"


class TextBlock(Wire):
    """A block of the system prompt."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class MessageParam(Wire):
    """One message; its blocks are checked where they are read."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class MessageTool(Wire):
    """A tool; those that run at the provider have a ``type`` and no schema, and are not called."""

    name: str = Field(min_length=1)
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    cache_control: CacheControl | None = None


class MessageToolChoice(Wire):
    """Whether to call tools."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = False


class Metadata(Wire):
    """Who uses the program."""

    user_id: str | None = None


class JsonOutput(Wire):
    """What an answer must be."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(Wire):
    """How to answer; ``effort`` changes nothing."""

    format: JsonOutput | None = None


class CountRequest(ServerExtras):
    """The fields that make the prompt: the body of ``/v1/messages/count_tokens``."""

    model: str | None = None
    messages: list[MessageParam] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[MessageTool] | None = None
    tool_choice: MessageToolChoice | None = None
    cache_control: CacheControl | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountRequest):
    """The fields that change what the emulated model does, and those that are checked for it."""

    max_tokens: Whole = Field(ge=1)
    stream: bool | None = False
    stop_sequences: list[StopString] | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
