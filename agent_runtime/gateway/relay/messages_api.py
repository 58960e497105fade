"""Anthropic's messages, relayed."""

from __future__ import annotations

from typing import Any

from agent_runtime.engine_call import ReplyReader
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import DialectName
from agent_runtime.gateway.dialects.messages_dialect import broken_message
from agent_runtime.gateway.relay.body_fields import read_fields
from agent_runtime.gateway.relay.message_prompts import (
    cache_lease_s,
    chat_messages,
    tool_definitions,
)
from agent_runtime.gateway.relay.message_replies import StreamedMessage, WholeMessage
from agent_runtime.gateway.relay.relayed_api import (
    AskedOfEngine,
    ChatHistory,
    Fields,
    NoHistory,
    ReadPrompt,
    RelayedPrompt,
    least_cap,
)
from agent_runtime.gateway.session_keys import claude_code_session
from agent_runtime.prompts.chat_prompt import render_chat


class MessagesApi:
    """``/v1/messages``."""

    name = DialectName.MESSAGES
    path = "/v1/messages"
    takes_members = False

    def read(self, body: bytes) -> dict[str, Any]:
        """Return all members."""
        return read_fields(body)

    def prompt(self, fields: Fields) -> RelayedPrompt:
        """Return the tools, the system prompt and the messages."""
        given = fields.get("messages")
        messages = chat_messages(given if isinstance(given, list) else [], fields.get("system"))
        if not messages:
            return ReadPrompt((), NoHistory())
        pieces = render_chat(messages, tool_definitions(fields.get("tools")))
        return ReadPrompt(pieces, ChatHistory(pieces))

    def scope(self, fields: Fields) -> str | None:
        """Return Claude Code's session, which its helpers share."""
        metadata = fields.get("metadata")
        return claude_code_session(metadata.get("user_id")) if isinstance(metadata, dict) else None

    def lease_s(self, fields: Fields) -> float | None:
        """Return the longest lifetime of a ``cache_control``."""
        return cache_lease_s(fields)

    def output_cap(self, fields: Fields) -> int | None:
        """Return ``max_tokens``."""
        return least_cap(fields, "max_tokens")

    def asked(self, fields: Fields, body: bytes) -> AskedOfEngine:
        """Return what a first engine is asked: the same."""
        return AskedOfEngine(body, StreamedMessage() if fields.get("stream") else WholeMessage())

    def continued(self, fields: Fields, reader: ReplyReader) -> None:
        """Return nothing: vLLM takes no message that is half said."""

    def broken(self, error: RequestError | BackendError, reader: ReplyReader) -> bytes:  # noqa: ARG002 - protocol
        """Return the event ``error``."""
        return broken_message(error)
