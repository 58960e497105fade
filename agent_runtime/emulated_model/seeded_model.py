"""The model that makes everything up, from a seed and the prompt."""

from __future__ import annotations

import json

import numpy as np

from agent_runtime.emulated_model.model_call import (
    ChoiceAnswer,
    FreeText,
    JsonAnswer,
    ModelCall,
    PatternAnswer,
    Tool,
    ToolMode,
)
from agent_runtime.emulated_model.reply import (
    Reply,
    Speech,
    ToolCall,
    calling_speech,
    calls_text,
    cut_reply,
    text_speech,
)
from agent_runtime.emulated_model.reply_limits import ReplyLength, ReplyLimits
from agent_runtime.emulated_model.tokenised_text import made_up_text, tokenised
from agent_runtime.emulated_model.tool_use import ToolUse
from agent_runtime.errors import InvalidRequestError
from agent_runtime.json_sampling.json_values import Json
from agent_runtime.json_sampling.pattern_nodes import LengthError
from agent_runtime.json_sampling.sampling_errors import SchemaError
from agent_runtime.json_sampling.schema_document import Schema
from agent_runtime.json_sampling.schema_sampler import sample_json

MAX_PLACE_LENGTH = 160


class SeededModel:
    """Says as much as coding agents say, calls tools as often, and fits every schema.

    Args:
        seed: Another one, other replies.
        length: Of texts; a step that may also speak calls its tools after a text that fills it up.
        tool_use: When tools are called.
    """

    def __init__(
        self,
        seed: int = 0,
        length: ReplyLength = ReplyLength(),  # noqa: B008 - frozen
        tool_use: ToolUse = ToolUse(),  # noqa: B008 - frozen
    ) -> None:
        self._seed, self._length, self._tool_use = seed, length, tool_use

    def reply(self, call: ModelCall) -> Reply:
        """Return all of one choice.

        Raises:
            InvalidRequestError: A schema or a pattern that nothing is found for; names the field.
        """
        rng = call.rng(self._seed)
        tools = self._tool_use.chosen_tools(call, self._seed, rng)
        speech = self._calling(tools, call, rng) if tools else self._answer(call, rng)
        return cut_reply(speech, call.limits, call.stops)

    def _calling(self, tools: list[Tool], call: ModelCall, rng: np.random.Generator) -> Speech:
        calls = tuple(
            ToolCall(call.call_id(index), tool.name, sampled_arguments(tool, rng, call.max_effort))
            for index, tool in enumerate(tools)
        )
        if call.tools.mode is not ToolMode.AUTO:  # the grammar leaves no room for a text
            return calling_speech(calls, forced=call.tools.mode is ToolMode.NAMED)
        num_left = call.limits.cap - calls_text(calls).num_tokens - 1
        num_wanted = self._num_tokens(call.limits, rng) - (call.limits.cap - num_left)
        num_words = min(num_left, num_wanted)
        return calling_speech(calls, made_up_text(rng, num_words) if num_words > 0 else None)

    def _answer(self, call: ModelCall, rng: np.random.Generator) -> Speech:
        if isinstance(call.answer_format, FreeText):
            return text_speech(made_up_text(rng, self._num_tokens(call.limits, rng)))
        return text_speech(tokenised(formatted_answer(call.answer_format, rng, call.max_effort)))

    def _num_tokens(self, limits: ReplyLimits, rng: np.random.Generator) -> int:
        """Return how much is wanted; one more than allowed where that cuts it."""
        natural = max(limits.min_tokens, self._length.sample(rng))
        return max(limits.fewest, min(natural, limits.cap + 1))


def formatted_answer(
    answer_format: ChoiceAnswer | PatternAnswer | JsonAnswer,
    rng: np.random.Generator,
    max_effort: int,
) -> str:
    """Return an answer of a format.

    Raises:
        InvalidRequestError: Nothing is found for it.
    """
    match answer_format:
        case ChoiceAnswer(choices=choices):
            return choices[int(rng.integers(len(choices)))]
        case PatternAnswer(pattern=pattern, place=place):
            try:
                return pattern.sample(rng)
            except LengthError as error:
                raise InvalidRequestError(f"{place}: {error}", param=place) from error
        case JsonAnswer(schema=schema, place=place):
            return as_json(_sampled(schema, rng, place, max_effort))


def sampled_arguments(tool: Tool, rng: np.random.Generator, max_effort: int) -> str:
    """Return arguments for a call of ``tool``, as JSON.

    Raises:
        InvalidRequestError: Nothing is found for its schema.
    """
    parameters = tool.parameters or {}
    if isinstance(parameters, dict) and "type" not in parameters:
        parameters = {**parameters, "type": "object"}
    arguments = _sampled(parameters, rng, tool.place, max_effort)
    if not isinstance(arguments, dict):
        raise InvalidRequestError(
            f"{tool.place}: the arguments of a tool are an object; write type: object",
            param=tool.place,
        )
    return as_json(arguments)


def as_json(value: Json) -> str:
    """Return JSON as models and clients write it, so that it stays the same when sent back."""
    return json.dumps(value, ensure_ascii=False)


def _sampled(schema: Schema, rng: np.random.Generator, place: str, max_effort: int) -> Json:
    try:
        return sample_json(schema, rng, place=place, max_effort=max_effort)
    except SchemaError as error:
        where = error.place
        if len(where) > MAX_PLACE_LENGTH:
            where = f"{where[:MAX_PLACE_LENGTH]}..."
        raise InvalidRequestError(f"{where}: {error.problem}", param=where) from error
