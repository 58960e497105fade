"""What an answer must be, as OpenAI's and vLLM's fields say it."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from agent_runtime.gateway.dialects.chat_wire import ResponseFormat, StructuredOutputs
from agent_runtime.gateway.neutral_request import (
    ChoiceTerms,
    FormatTerms,
    JsonTerms,
    PatternTerms,
    wrong,
)


def format_terms(
    response_format: ResponseFormat | None, structured: StructuredOutputs | None
) -> FormatTerms:
    """Return what an answer must be; None for anything.

    Raises:
        InvalidRequestError: Fields that say nothing, too much, or what is not served.
    """
    if structured is not None:
        return _structured(structured)
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_object":
        return JsonTerms(None, "response_format")
    if response_format.json_schema is None or response_format.json_schema.json_schema is None:
        raise wrong("response_format.json_schema.schema", "a json_schema format needs its schema")
    schema = response_format.json_schema.json_schema
    return JsonTerms(schema, "response_format.json_schema.schema")


def _structured(asked: StructuredOutputs) -> FormatTerms:
    for field in ("grammar", "structural_tag"):
        if getattr(asked, field) is not None:
            place = f"structured_outputs.{field}"
            raise wrong(place, "the emulated model does not follow it; use json, choice or regex")
    wanted = [asked.json_schema, asked.json_object or None, asked.choice, asked.regex]
    if sum(one is not None for one in wanted) != 1:
        raise wrong("structured_outputs", "give exactly one of json, json_object, choice, regex")
    if asked.choice is not None:
        return ChoiceTerms(tuple(asked.choice))
    if asked.regex is not None:
        return PatternTerms(asked.regex, "structured_outputs.regex")
    if asked.json_object:
        return JsonTerms(None, "structured_outputs.json_object")
    return JsonTerms(_schema(asked.json_schema), "structured_outputs.json")


def _schema(given: dict[str, Any] | str | None) -> dict[str, Any]:
    if not isinstance(given, str):
        return given or {}
    try:
        schema = from_json(given)  # unlike the standard library's, it bounds nesting
    except ValueError as error:
        raise wrong("structured_outputs.json", f"not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise wrong("structured_outputs.json", "expected a schema: an object")
    return schema
