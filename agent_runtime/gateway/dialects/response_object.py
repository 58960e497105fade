"""The response object: what is asked, what is said, and how it went."""

from __future__ import annotations

from typing import Any

from agent_runtime.emulated_model.reply import PieceKind, Reply
from agent_runtime.emulated_model.token_logprobs import token_logprobs
from agent_runtime.gateway.dialect import AnswerHead, TurnUsage
from agent_runtime.gateway.dialects.responses_wire import ResponsesRequest

CALL_PREFIX = "call_"


def call_id_of(call_id: str) -> str:
    """Return a call's id as this API spells it."""
    return CALL_PREFIX + call_id.removeprefix("chatcmpl-tool-")


def response_head(request: ResponsesRequest, head: AnswerHead, response_id: str) -> dict[str, Any]:
    """Return what of a response is known when it begins."""
    choice: object = "auto"
    if request.tool_choice is not None:
        given = request.tool_choice
        choice = given.type if given.type in _WORDS else given.model_dump(exclude_unset=True)
    text: dict[str, Any] = {"format": {"type": "text"}}
    if request.text is not None and request.text.format is not None:
        text = request.text.model_dump(by_alias=True, exclude_none=True)
    extra = request.model_extra or {}
    return {
        "id": response_id,
        "object": "response",
        "created_at": head.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": head.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": extra.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": text,
        "tool_choice": choice,
        "tools": [tool.model_dump(exclude_unset=True) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
        "usage": None,
    }


_WORDS = frozenset({"none", "auto", "required"})


def ended(head: dict[str, Any], reply: Reply, output: list[Any], used: TurnUsage) -> dict[str, Any]:
    """Return the response once everything is said."""
    cut = reply.finish_reason == "length"
    return {
        **head,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": {
            "input_tokens": used.num_prompt,
            "input_tokens_details": {"cached_tokens": used.num_cached},
            "output_tokens": used.num_output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used.num_prompt + used.num_output,
        },
    }


def output_items(reply: Reply, suffix: str, num_top_logprobs: int | None) -> list[dict[str, Any]]:
    """Return what is said, as items: a message if there is text or nothing else, then calls."""
    message = reply.message()
    cut = reply.finish_reason == "length"
    calls = message.get("tool_calls", [])
    items: list[dict[str, Any]] = []
    if message["content"] or not calls:
        logprobs = content_logprobs(reply, 0, reply.num_tokens, num_top_logprobs)
        part = text_part(message["content"] or "", logprobs)
        status = "incomplete" if cut and not calls else "completed"
        items.append(message_item(f"msg_{suffix}", [part], status))
    for index, call in enumerate(calls):
        last = index == len(calls) - 1
        function = call["function"]
        items.append(
            call_item(
                f"fc_{suffix}_{index}",
                call_id_of(call["id"]),
                function["name"],
                function["arguments"],
                "incomplete" if cut and last else "completed",
            )
        )
    return items


def message_item(item_id: str, content: list[Any], status: str) -> dict[str, Any]:
    """Return a message."""
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def text_part(text: str, logprobs: list[Any]) -> dict[str, Any]:
    """Return a message's text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def call_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    """Return a call of a function."""
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def content_logprobs(
    reply: Reply, start: int, stop: int, num_top: int | None
) -> list[dict[str, Any]]:
    """Return those of the tokens from ``start`` to ``stop`` that are text for the caller."""
    first = reply.speech.segments[:1]
    if num_top is None or not first or first[0].kind is not PieceKind.CONTENT:
        return []
    text_end = min(first[0].end, reply.text_end)
    while stop > start and reply.ends[stop - 1] > text_end:
        stop -= 1
    return token_logprobs(reply, start, stop, num_top)
