"""``/v1/chat/completions``: from the body to the neutral request."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter

from agent_runtime.gateway.client_hints import client_hints
from agent_runtime.gateway.dialects.answer_formats import format_terms
from agent_runtime.gateway.dialects.chat_wire import (
    ChatMessage,
    ChatRequest,
    ToolChoiceParam,
    ToolParam,
)
from agent_runtime.gateway.dialects.prompt_cache_terms import retention_lease_s
from agent_runtime.gateway.neutral_request import (
    CallMode,
    ChatPrompt,
    LengthTerms,
    NeutralRequest,
    OfferedTool,
    ToolTerms,
    named_tools,
    wrong,
)
from agent_runtime.gateway.session_keys import Caller, session_keys
from agent_runtime.gateway.wire import parse_body

MESSAGES = TypeAdapter(list[ChatMessage])


def read_chat(body: bytes, caller: Caller) -> tuple[ChatRequest, NeutralRequest]:
    """Read a request.

    Raises:
        InvalidRequestError: A field that is not what it must be, or fields that don't go together.
    """
    chat = parse_body(ChatRequest, body)
    if chat.top_logprobs and not chat.logprobs:
        raise wrong("top_logprobs", "when using `top_logprobs`, set `logprobs` to true")
    messages = tuple(MESSAGES.dump_python(chat.messages))
    tools = tuple(tool.model_dump(exclude_unset=True) for tool in chat.tools or ())
    neutral = NeutralRequest(
        model=chat.model,
        prompts=(ChatPrompt(messages, tools),),
        num_choices=chat.n or 1,
        stream=bool(chat.stream),
        length=LengthTerms(
            max_tokens=chat.output_cap,
            min_tokens=chat.min_tokens or 0,
            ignore_eos=bool(chat.ignore_eos),
            stops=tuple(chat.stop or ()),
            stop_shown=bool(chat.include_stop_str_in_output),
        ),
        tools=_tool_terms(chat),
        answer_format=format_terms(chat.response_format, chat.structured_outputs),
        seed=chat.seed,
        keys=session_keys(
            caller,
            session_id=chat.session_id,
            cache_salt=chat.cache_salt,
            scope=chat.prompt_cache_key,
        ),
        hints=client_hints(
            caller.headers,
            chat.panjiu,
            priority=chat.priority,
            lease_s=retention_lease_s(chat.prompt_cache_retention),
        ),
    )
    return chat, neutral


def _tool_terms(chat: ChatRequest) -> ToolTerms:
    tools = _offered(chat.tools or ())
    choice = chat.tool_choice or ToolChoiceParam(type="auto")
    parallel = chat.parallel_tool_calls is not False
    if not tools:
        if choice.type not in {"none", "auto"}:
            raise wrong("tool_choice", "when using `tool_choice`, set `tools`")
        return ToolTerms()
    if choice.type == "function":
        if choice.function is None:
            raise wrong("tool_choice.function", "say which function to call")
        named = named_tools(tools, [choice.function.name], "tool_choice.function.name")
        return ToolTerms(named, CallMode.NAMED, parallel)
    if choice.type == "allowed_tools":
        if choice.allowed_tools is None:
            raise wrong("tool_choice.allowed_tools", "say which tools are allowed")
        names = [tool.function.name for tool in choice.allowed_tools.tools]
        allowed = named_tools(tools, names, "tool_choice.allowed_tools.tools")
        return ToolTerms(allowed, CallMode(choice.allowed_tools.mode), parallel)
    return ToolTerms(tools, CallMode(choice.type), parallel)


def _offered(tools: Sequence[ToolParam]) -> tuple[OfferedTool, ...]:
    return tuple(
        OfferedTool(
            tool.function.name,
            tool.function.parameters,
            place=f"tools[{index}].function.parameters",
        )
        for index, tool in enumerate(tools)
    )
