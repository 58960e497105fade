"""From a request's fields to what the emulated model is asked: tools, format and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from agent_runtime.emulated_model.model_call import (
    AnswerFormat,
    ChoiceAnswer,
    FreeText,
    JsonAnswer,
    PatternAnswer,
    Tool,
    ToolMode,
    ToolOffer,
)
from agent_runtime.emulated_model.reply import StopStrings
from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.wire import (
    ChatRequest,
    ResponseFormat,
    StructuredOutputs,
    ToolChoiceParam,
)
from agent_runtime.json_sampling.pattern_nodes import PatternError
from agent_runtime.json_sampling.regular_pattern import parse_pattern

ANY_OBJECT: dict[str, Any] = {
    "type": "object",
    "minProperties": 2,
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}
"""What ``json_object`` is answered with: the caller's prompt says what it should be."""


@dataclass(frozen=True, slots=True)
class AskedOfModel:
    """What a request asks for, beside its length."""

    tools: ToolOffer
    answer_format: AnswerFormat
    stops: StopStrings


def asked_of_model(chat: ChatRequest) -> AskedOfModel:
    """Read what a request asks for.

    Raises:
        InvalidRequestError: Fields that don't go together; names one of them.
    """
    if chat.top_logprobs and not chat.logprobs:
        raise _wrong("top_logprobs", "when using `top_logprobs`, set `logprobs` to true")
    return AskedOfModel(
        tools=_tool_offer(chat),
        answer_format=_answer_format(chat.response_format, chat.structured_outputs),
        stops=StopStrings(tuple(chat.stop or ()), bool(chat.include_stop_str_in_output)),
    )


def _tool_offer(chat: ChatRequest) -> ToolOffer:
    tools = tuple(
        Tool(
            tool.function.name,
            tool.function.parameters,
            place=f"tools[{index}].function.parameters",
        )
        for index, tool in enumerate(chat.tools or ())
    )
    choice = chat.tool_choice or ToolChoiceParam(type="auto")
    parallel = chat.parallel_tool_calls is not False
    if not tools:
        if choice.type not in {"none", "auto"}:
            raise _wrong("tool_choice", "when using `tool_choice`, set `tools`")
        return ToolOffer()
    if choice.type == "function":
        if choice.function is None:
            raise _wrong("tool_choice.function", "say which function to call")
        named = _of_names(tools, [choice.function.name], "tool_choice.function.name")
        return ToolOffer(named, ToolMode.NAMED, parallel)
    if choice.type == "allowed_tools":
        if choice.allowed_tools is None:
            raise _wrong("tool_choice.allowed_tools", "say which tools are allowed")
        names = [tool.function.name for tool in choice.allowed_tools.tools]
        allowed = _of_names(tools, names, "tool_choice.allowed_tools.tools")
        return ToolOffer(allowed, ToolMode(choice.allowed_tools.mode), parallel)
    return ToolOffer(tools, ToolMode(choice.type), parallel)


def _of_names(tools: Sequence[Tool], names: Sequence[str], param: str) -> tuple[Tool, ...]:
    by_name = {tool.name: tool for tool in tools}
    for name in names:
        if name not in by_name:
            raise _wrong(param, f"{name!r} is not among the tools: {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)


def _answer_format(
    response_format: ResponseFormat | None, structured: StructuredOutputs | None
) -> AnswerFormat:
    if structured is not None:
        return _structured(structured)
    if response_format is None or response_format.type == "text":
        return FreeText()
    if response_format.type == "json_object":
        return JsonAnswer(ANY_OBJECT, "response_format")
    if response_format.json_schema is None or response_format.json_schema.json_schema is None:
        raise _wrong("response_format.json_schema.schema", "a json_schema format needs its schema")
    schema = response_format.json_schema.json_schema
    return JsonAnswer(schema, "response_format.json_schema.schema")


def _structured(asked: StructuredOutputs) -> AnswerFormat:
    for field in ("grammar", "structural_tag"):
        if getattr(asked, field) is not None:
            place = f"structured_outputs.{field}"
            raise _wrong(place, "the emulated model does not follow it; use json, choice or regex")
    wanted = [asked.json_schema, asked.json_object or None, asked.choice, asked.regex]
    if sum(one is not None for one in wanted) != 1:
        raise _wrong("structured_outputs", "give exactly one of json, json_object, choice, regex")
    if asked.choice is not None:
        return ChoiceAnswer(tuple(asked.choice))
    if asked.regex is not None:
        place = "structured_outputs.regex"
        try:
            return PatternAnswer(parse_pattern(asked.regex), place)
        except PatternError as error:
            raise _wrong(place, str(error)) from error
    if asked.json_object:
        return JsonAnswer(ANY_OBJECT, "structured_outputs.json_object")
    return JsonAnswer(_schema(asked.json_schema), "structured_outputs.json")


def _schema(given: dict[str, Any] | str | None) -> dict[str, Any]:
    if not isinstance(given, str):
        return given or {}
    try:
        schema = from_json(given)  # unlike the standard library's, it bounds nesting
    except ValueError as error:
        raise _wrong("structured_outputs.json", f"not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise _wrong("structured_outputs.json", "expected a schema: an object")
    return schema


def _wrong(param: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: {problem}", param=param)
