"""OpenAI's responses, relayed."""

from __future__ import annotations

from typing import Any

import msgspec

from agent_runtime.engine_call import ReplyReader
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import DialectName
from agent_runtime.gateway.dialects.prompt_cache_terms import retention_lease_s
from agent_runtime.gateway.error_mapping import http_error
from agent_runtime.gateway.relay.body_fields import read_fields
from agent_runtime.gateway.relay.relayed_api import (
    AskedOfEngine,
    ChatHistory,
    Fields,
    NoHistory,
    ReadPrompt,
    RelayedPrompt,
    least_cap,
    text_of,
)
from agent_runtime.gateway.relay.response_prompts import (
    chat_messages,
    input_items,
    tool_definitions,
)
from agent_runtime.gateway.relay.response_replies import StreamedResponse, WholeResponse
from agent_runtime.prompts.chat_prompt import render_chat


class ResponsesApi:
    """``/v1/responses``."""

    name = DialectName.RESPONSES
    path = "/v1/responses"
    takes_members = True

    def read(self, body: bytes) -> dict[str, Any]:
        """Return all members."""
        return read_fields(body)

    def prompt(self, fields: Fields) -> RelayedPrompt:
        """Return the tools, the instructions and the items."""
        messages = chat_messages(input_items(fields.get("input")))
        instructions = text_of(fields, "instructions")
        if instructions is not None:
            messages.insert(0, {"role": "system", "content": instructions})
        if not messages:
            return ReadPrompt((), NoHistory())
        pieces = render_chat(messages, tool_definitions(fields.get("tools")))
        return ReadPrompt(pieces, ChatHistory(pieces))

    def scope(self, fields: Fields) -> str | None:
        """Return the ``prompt_cache_key``."""
        return text_of(fields, "prompt_cache_key")

    def lease_s(self, fields: Fields) -> float | None:
        """Return what ``prompt_cache_retention`` comes to."""
        return retention_lease_s(text_of(fields, "prompt_cache_retention"))

    def output_cap(self, fields: Fields) -> int | None:
        """Return ``max_output_tokens``."""
        return least_cap(fields, "max_output_tokens")

    def asked(self, fields: Fields, body: bytes) -> AskedOfEngine:
        """Return what a first engine is asked: the same."""
        return AskedOfEngine(body, StreamedResponse() if fields.get("stream") else WholeResponse())

    def continued(self, fields: Fields, reader: ReplyReader) -> None:
        """Return nothing: half a response can't be gone on with."""

    def broken(self, error: RequestError | BackendError, reader: ReplyReader) -> bytes:
        """Return ``response.failed``, or ``error`` where nothing is known of the response."""
        message = http_error(error).message
        if not isinstance(reader, StreamedResponse) or reader.response is None:
            return response_event("error", 0, code="server_error", message=message, param=None)
        return response_event(
            "response.failed", reader.num_events, response=failed(reader.response, message)
        )


def failed(response: dict[str, Any], message: str) -> dict[str, Any]:
    """Return a response that has failed."""
    return {**response, "status": "failed", "error": {"code": "server_error", "message": message}}


def response_event(kind: str, number: int, **fields: object) -> bytes:
    """Return an event."""
    data = msgspec.json.encode({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
