"""``/v1/messages``: from the body to the neutral request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from agent_runtime.gateway.client_hints import client_hints
from agent_runtime.gateway.dialects.message_blocks import ReadMessages
from agent_runtime.gateway.dialects.messages_wire import (
    CountRequest,
    MessagesRequest,
    MessageTool,
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
from agent_runtime.gateway.session_keys import Caller, claude_code_session, session_keys
from agent_runtime.gateway.wire import parse_body

CountT = TypeVar("CountT", bound=CountRequest)


def read_messages(body: bytes, caller: Caller) -> tuple[MessagesRequest, NeutralRequest]:
    """Read a request.

    Raises:
        InvalidRequestError: A field that is not what it must be, or content that is not text.
    """
    return _read(parse_body(MessagesRequest, body), caller)


def read_count(body: bytes, caller: Caller) -> NeutralRequest:
    """Read a request that only asks how long its prompt is.

    Raises:
        InvalidRequestError: As of ``read_messages``.
    """
    return _read(parse_body(CountRequest, body), caller)[1]


def _read(asked: CountT, caller: Caller) -> tuple[CountT, NeutralRequest]:
    read = ReadMessages()
    for index, tool in enumerate(asked.tools or ()):
        _note_tool(read, index, tool)
    read.system(asked.system)
    for index, message in enumerate(asked.messages):
        read.message(index, message)
    if asked.cache_control is not None:
        read.breakpoint_here(asked.cache_control)
    metadata = asked.metadata
    scope = None if metadata is None else claude_code_session(metadata.user_id)
    neutral = NeutralRequest(
        model=asked.model,
        prompts=(ChatPrompt(read.messages, _definitions(asked.tools or ())),),
        stream=isinstance(asked, MessagesRequest) and bool(asked.stream),
        length=_length(asked),
        tools=_tool_terms(asked),
        answer_format=_format(asked),
        seed=asked.seed,
        keys=session_keys(
            caller, session_id=asked.session_id, cache_salt=asked.cache_salt, scope=scope
        ),
        hints=client_hints(
            caller.headers, asked.panjiu, priority=asked.priority, lease_s=read.lease_s
        ),
        cache_breakpoint=read.last_breakpoint,
    )
    return asked, neutral


def _length(asked: CountRequest) -> LengthTerms:
    if not isinstance(asked, MessagesRequest):
        return LengthTerms()
    return LengthTerms(
        max_tokens=asked.max_tokens,
        min_tokens=asked.min_tokens or 0,
        ignore_eos=bool(asked.ignore_eos),
        stops=tuple(asked.stop_sequences or ()),
    )


def _note_tool(read: ReadMessages, index: int, tool: MessageTool) -> None:
    if tool.type in {None, "custom"} and tool.input_schema is None:
        raise wrong(f"tools[{index}].input_schema", "a tool needs the schema of its input")
    if tool.cache_control is not None:
        read.tools_breakpoint(tool.cache_control)


def _definitions(tools: Sequence[MessageTool]) -> list[dict[str, Any]]:
    """Return the tools as the model sees them, the same as in the other dialects."""
    definitions = []
    for tool in tools:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.input_schema is not None:
            function["parameters"] = tool.input_schema
        definitions.append({"type": "function", "function": function})
    return definitions


def _tool_terms(asked: CountRequest) -> ToolTerms:
    tools = tuple(
        OfferedTool(tool.name, tool.input_schema, f"tools[{index}].input_schema")
        for index, tool in enumerate(asked.tools or ())
        if tool.input_schema is not None  # others run at the provider
    )
    choice = asked.tool_choice
    if choice is None:
        return ToolTerms(tools, CallMode.AUTO) if tools else ToolTerms()
    if not tools:
        if choice.type in {"any", "tool"}:
            raise wrong("tool_choice", "when using `tool_choice`, set `tools`")
        return ToolTerms()
    parallel = not choice.disable_parallel_tool_use
    if choice.type == "tool":
        if choice.name is None:
            raise wrong("tool_choice.name", "say which tool to call")
        named = named_tools(tools, [choice.name], "tool_choice.name")
        return ToolTerms(named, CallMode.NAMED, parallel)
    mode = {"auto": CallMode.AUTO, "any": CallMode.REQUIRED, "none": CallMode.NONE}[choice.type]
    return ToolTerms(tools, mode, parallel)


def _format(asked: CountRequest) -> FormatTerms:
    config = asked.output_config
    if config is None or config.format is None:
        return None
    return JsonTerms(config.format.json_schema, "output_config.format.schema")
