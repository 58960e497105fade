"""``POST /v1/chat/completions``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import AnswerHead, DialectName, TurnUsage
from agent_runtime.gateway.dialects.chat_answer import whole_answer
from agent_runtime.gateway.dialects.chat_chunks import ChoiceChunks, usage_chunk
from agent_runtime.gateway.dialects.chat_reading import read_chat
from agent_runtime.gateway.dialects.chat_wire import ChatRequest
from agent_runtime.gateway.dialects.openai_objects import (
    DONE,
    ObjectHead,
    broken_stream,
    usage_object,
)
from agent_runtime.gateway.neutral_request import NeutralRequest
from agent_runtime.gateway.planned_turn import PlannedTurn
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.turns import TurnProgress


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """The dialect."""

    name: DialectName = DialectName.CHAT

    async def read(self, body: bytes, caller: Caller) -> tuple[ChatRequest, NeutralRequest]:
        """Read a body."""
        return read_chat(body, caller)

    def form(self, request: ChatRequest, turn: PlannedTurn, head: AnswerHead) -> ChatForm:
        """Return what writes the answer."""
        return ChatForm(request, turn, head)


class ChatForm:
    """Writes one answer.

    Args:
        request: As it was asked.
        turn: What is said.
        head: The rest.
    """

    __slots__ = ("_chunks", "_head", "_request", "_turn")

    def __init__(self, request: ChatRequest, turn: PlannedTurn, head: AnswerHead) -> None:
        self._request, self._turn = request, turn
        self._head = ObjectHead(f"chatcmpl-{head.request_id}", head.created, head.model)
        self._chunks: list[ChoiceChunks] = []

    def whole(self, used: TurnUsage) -> dict[str, Any]:
        """Return the body of a finished answer."""
        return whole_answer(
            self._head, self._turn.replies, usage_object(used), self._request.num_top_logprobs
        )

    def opening(self) -> bytes:
        """Return nothing: clients take the first chunk for a token."""
        options = self._request.stream_options
        self._chunks = [
            ChoiceChunks(
                self._head,
                index,
                reply,
                num_prompt_tokens=self._turn.num_prompt_tokens,
                with_usage=options is not None and bool(options.continuous_usage_stats),
                num_top_logprobs=self._request.num_top_logprobs,
            )
            for index, reply in enumerate(self._turn.replies)
        ]
        return b""

    def step(self, number: int, step: TurnProgress) -> bytes:
        """Return the chunks that a step makes."""
        return self._chunks[number].of(step)

    def closing(self, used: TurnUsage) -> bytes:
        """Return the end, after the usage if it was asked for."""
        options = self._request.stream_options
        if options is None or not options.include_usage:
            return DONE
        return usage_chunk(self._head, usage_object(used)) + DONE

    def failure(self, error: RequestError | BackendError) -> bytes:
        """Return the error and the end."""
        return broken_stream(error)
