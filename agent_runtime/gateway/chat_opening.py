"""The first half of a chat completion: read it, find whose it is, bring its prompt up to date."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio
from starlette.requests import Request

from agent_runtime.errors import BodyTooLargeError, ContextTooLongError
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.session_directory import ChatSession, SessionDirectory
from agent_runtime.gateway.wire import ChatRequest
from agent_runtime.prompts.chat_prompt import (
    PromptMemory,
    RenderedMessage,
    chain_digests,
    render_chat,
)
from agent_runtime.turns import TurnRunner
from scheduler.ids import TurnId


@dataclass(frozen=True, slots=True)
class OpenedChat:
    """A request whose session is found and whose prompt is known.

    Attributes:
        request: As it was asked.
        session: Whose it is.
        raw_messages: Its messages as dicts.
        messages: What the model sees, tool definitions first.
        digests: Of the conversation after each of ``raw_messages``.
        num_prompt_tokens: Of the prompt.
    """

    request: ChatRequest
    session: ChatSession
    raw_messages: Sequence[dict[str, Any]]
    messages: Sequence[RenderedMessage]
    digests: Sequence[bytes]
    num_prompt_tokens: int

    def digest_with(self, reply: dict[str, Any]) -> bytes:
        """Return the digest of the conversation with this message at its end."""
        return chain_digests([*self.messages, *render_chat([reply], ())])[-1]


@dataclass(slots=True)
class ChatOpening:
    """Opens requests.

    Attributes:
        runner: Runs turns.
        models: What is served.
        sessions: Who is talking.
        max_body_bytes: Larger bodies are refused.
    """

    runner: TurnRunner
    models: Models
    sessions: SessionDirectory
    max_body_bytes: int
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def read(self, request: Request) -> bytes:
        """Return the body.

        Raises:
            BodyTooLargeError: Over the limit.
            ClientDisconnect: The client left.
        """
        limit = self.max_body_bytes
        declared = request.headers.get("content-length", "")
        body = bytearray()
        too_large = declared.isdecimal() and int(declared) > limit
        if not too_large:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    too_large = True
                    break
        if too_large:
            raise BodyTooLargeError(f"the body is over the limit of {limit} bytes")
        return bytes(body)

    def open(self, chat: ChatRequest, request: Request) -> OpenedChat:
        """Find the session and bring its memory up to the prompt.

        Raises:
            InvalidRequestError: Content that can't be read.
            UnknownModelError: Another model.
            ContextTooLongError: No replica holds the prompt.
        """
        if chat.model is not None:
            self.models.check(chat.model)
        raw = [message.model_dump() for message in chat.messages]
        tools = [tool.model_dump(exclude_unset=True) for tool in chat.tools or ()]
        messages = render_chat(raw, tools)
        digests = chain_digests(messages)
        session = self._find_session(chat, request, digests)
        num_prompt = self._open_prompt(session.memory, messages)
        return OpenedChat(
            chat, session, raw, messages, digests[len(digests) - len(raw) :], num_prompt
        )

    def next_turn_id(self) -> TurnId:
        """Return an id that no turn had."""
        return TurnId(f"turn-{next(self._numbers)}")

    def room_tokens(self, chat: OpenedChat) -> int:
        """Return how many tokens a reply may have."""
        return self.runner.max_context_tokens - chat.num_prompt_tokens

    def _find_session(
        self, chat: ChatRequest, request: Request, digests: Sequence[bytes]
    ) -> ChatSession:
        now_s = anyio.current_time()
        key = chat.session_id
        if key is None and "x-session-id" in request.headers:
            key = _from_header(request.headers["x-session-id"])
        for forgotten in self.sessions.forget_old(now_s):
            self.runner.close_session(forgotten)
        return self.sessions.find(key, digests, now_s)

    def _open_prompt(self, memory: PromptMemory, messages: Sequence[RenderedMessage]) -> int:
        limit = self.runner.max_context_tokens
        num_prompt = memory.open_prompt(messages)
        if num_prompt >= limit:
            memory.clear()  # or refused prompts, however long, would be kept for the idle time
            raise ContextTooLongError(
                f"This model's maximum context length is {limit} tokens. However, your prompt "
                f"contains {num_prompt} input tokens. Please shorten the messages.",
                param="messages",
            )
        return num_prompt


def _from_header(value: str) -> str:
    """Return the id that a header means, so that what we sent percent-encoded finds back.

    Starlette reads headers as Latin-1; clients that write non-ASCII as it is write UTF-8.
    """
    return unquote(value.encode("latin-1"), errors="backslashreplace")
