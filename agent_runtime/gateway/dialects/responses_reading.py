"""``/v1/responses``: from the body to the neutral request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from agent_runtime.gateway.client_hints import client_hints
from agent_runtime.gateway.dialects.prompt_cache_terms import retention_lease_s
from agent_runtime.gateway.dialects.response_items import ReadItems, referenced_item
from agent_runtime.gateway.dialects.responses_wire import (
    ResponsesRequest,
    ResponseTool,
    ResponseToolChoice,
)
from agent_runtime.gateway.neutral_request import (
    CallMode,
    ChatPrompt,
    FormatTerms,
    JsonTerms,
    LengthTerms,
    NeutralRequest,
    OfferedTool,
    ToolTerms,
    named_tools,
    wrong,
)
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse
from agent_runtime.gateway.session_keys import Caller, session_keys


def referenced_items(asked: ResponsesRequest) -> list[str]:
    """Return the ids of items of earlier answers that a request names instead of sending them."""
    items = () if asked.input is None or isinstance(asked.input, str) else asked.input
    return [item_id for item in items if (item_id := referenced_item(item)) is not None]


def read_responses(
    asked: ResponsesRequest, caller: Caller, store: ResponseStore[StoredResponse]
) -> NeutralRequest:
    """Read a request.

    Raises:
        InvalidRequestError: A field that is not what it must be, or that is not served.
        UnknownResponseError: It goes on with an answer that is not known.
    """
    _refuse_what_is_not_served(asked)
    before: Sequence[dict[str, Any]] = ()
    continued = None
    if asked.previous_response_id is not None:
        previous = store.get(caller.tenant_id, asked.previous_response_id)
        before, continued = previous.messages, previous.session_id
    messages = [*before, *_input_messages(asked, caller, store)]
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    if not messages:
        raise wrong("input", "nothing to answer; send input, or go on with a response")
    return NeutralRequest(
        model=asked.model,
        prompts=(ChatPrompt(messages, _definitions(asked.tools or ())),),
        stream=bool(asked.stream),
        length=LengthTerms(
            max_tokens=asked.max_output_tokens,
            min_tokens=asked.min_tokens or 0,
            ignore_eos=bool(asked.ignore_eos),
        ),
        tools=_tool_terms(asked),
        answer_format=_format(asked),
        seed=asked.seed,
        keys=session_keys(
            caller,
            session_id=asked.session_id,
            cache_salt=asked.cache_salt,
            continued=continued,
            scope=asked.prompt_cache_key,
        ),
        hints=client_hints(
            caller.headers,
            asked.panjiu,
            priority=asked.priority,
            lease_s=retention_lease_s(asked.prompt_cache_retention),
        ),
    )


def _refuse_what_is_not_served(asked: ResponsesRequest) -> None:
    if asked.conversation is not None:
        raise wrong("conversation", "none are kept here; use previous_response_id, or send input")
    if asked.prompt is not None:
        raise wrong("prompt", "there are no stored prompts; send instructions and input")
    if asked.background:
        raise wrong("background", "answers are generated while somebody listens; use stream")


def _input_messages(
    asked: ResponsesRequest, caller: Caller, store: ResponseStore[StoredResponse]
) -> list[dict[str, Any]]:
    if isinstance(asked.input, str):
        return [{"role": "user", "content": asked.input}]
    read = ReadItems(partial(store.item, caller.tenant_id))
    read.take(asked.input or ())
    return read.messages


def _definitions(tools: Sequence[ResponseTool]) -> list[dict[str, Any]]:
    """Return the tools as the model sees them: functions the same as in the other dialects."""
    definitions: list[dict[str, Any]] = []
    for tool in tools:
        given = tool.model_dump(exclude_unset=True)
        if tool.type == "function":
            given.pop("type")
            definitions.append({"type": "function", "function": given})
        else:
            definitions.append(given)
    return definitions


def _tool_terms(asked: ResponsesRequest) -> ToolTerms:
    tools = []
    for index, tool in enumerate(asked.tools or ()):
        if tool.type == "function":
            if not tool.name:
                raise wrong(f"tools[{index}].name", "a function needs a name")
            tools.append(OfferedTool(tool.name, tool.parameters, f"tools[{index}].parameters"))
    offered = tuple(tools)
    choice = asked.tool_choice or ResponseToolChoice(type="auto")
    parallel = asked.parallel_tool_calls is not False
    if choice.type == "function":
        if choice.name is None:
            raise wrong("tool_choice.name", "say which function to call")
        named = named_tools(offered, [choice.name], "tool_choice.name")
        return ToolTerms(named, CallMode.NAMED, parallel)
    if not offered:
        if choice.type == "required":
            raise wrong("tool_choice", "when using `tool_choice`, set `tools` of type function")
        return ToolTerms()
    if choice.type == "allowed_tools":
        names = [str(tool.get("name")) for tool in choice.tools or () if tool.get("name")]
        allowed = named_tools(offered, names, "tool_choice.tools")
        return ToolTerms(allowed, CallMode(choice.mode), parallel)
    # A choice of a tool at the provider is one that is never called.
    mode = choice.type if choice.type in {"none", "auto", "required"} else "auto"
    return ToolTerms(offered, CallMode(mode), parallel)


def _format(asked: ResponsesRequest) -> FormatTerms:
    wanted = None if asked.text is None else asked.text.format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return JsonTerms(None, "text.format")
    if wanted.json_schema is None:
        raise wrong("text.format.schema", "a json_schema format needs its schema")
    return JsonTerms(wanted.json_schema, "text.format.schema")
