"""From a neutral request to what the emulated model is asked: tools, format and stop strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from agent_runtime.gateway.neutral_request import (
    ChoiceTerms,
    FormatTerms,
    JsonTerms,
    NeutralRequest,
    PatternTerms,
    ToolTerms,
    wrong,
)
from agent_runtime.json_sampling.pattern_nodes import PatternError
from agent_runtime.json_sampling.regular_pattern import parse_pattern

ANY_OBJECT: dict[str, Any] = {
    "type": "object",
    "minProperties": 2,
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}
"""What is answered where any object will do: the caller's prompt says what it should be."""


@dataclass(frozen=True, slots=True)
class AskedOfModel:
    """What a request asks for, beside its length."""

    tools: ToolOffer
    answer_format: AnswerFormat
    stops: StopStrings


def asked_of_model(request: NeutralRequest) -> AskedOfModel:
    """Say it in the emulated model's terms.

    Raises:
        InvalidRequestError: A pattern that can't be read; names its field.
    """
    return AskedOfModel(
        tools=_tool_offer(request.tools),
        answer_format=_answer_format(request.answer_format),
        stops=StopStrings(request.length.stops, request.length.stop_shown),
    )


def _tool_offer(terms: ToolTerms) -> ToolOffer:
    tools = tuple(Tool(tool.name, tool.parameters, tool.place) for tool in terms.tools)
    return ToolOffer(tools, ToolMode(terms.mode.value), terms.parallel)


def _answer_format(terms: FormatTerms) -> AnswerFormat:
    match terms:
        case None:
            return FreeText()
        case JsonTerms(schema=schema, place=place):
            return JsonAnswer(ANY_OBJECT if schema is None else schema, place)
        case ChoiceTerms(choices=choices):
            return ChoiceAnswer(choices)
        case PatternTerms(pattern=pattern, place=place):
            try:
                return PatternAnswer(parse_pattern(pattern), place)
            except PatternError as error:
                raise wrong(place, str(error)) from error
