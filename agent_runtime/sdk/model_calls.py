"""Model calls with patience: tried again before their first byte, errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from agent_runtime.chat_client import ChatAnswer, ChatClient
from agent_runtime.errors import BackendError, ModelCallError, UpstreamRefusedError
from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Decision, TextDelta, TurnEnded, Usage
from agent_runtime.session_headers import SESSION_HEADER
from agent_runtime.spoken_message import SpokenMessage

TRY_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is tried.

    Attributes:
        num_tries: In all, >= 1.
        first_wait_s: Before the second; it doubles, unless the server says how long.
        longest_wait_s: At most.
    """

    num_tries: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, num_tried: int, asked_s: float | None) -> float:
        """Return how long to wait after so many tries."""
        wait_s = self.first_wait_s * 2 ** (num_tried - 1) if asked_s is None else asked_s
        return min(wait_s, self.longest_wait_s)


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said in one call.

    Attributes:
        message: As it goes back on the wire; its tool calls have ids.
        ended: How the call ended.
        knows_session: Whether the server told whose it is: it knows of sessions.
    """

    message: Message
    ended: TurnEnded
    knows_session: bool


class ModelCalls:
    """Calls of one server.

    Args:
        client: Entered.
        patience: With it.
    """

    def __init__(self, client: ChatClient, patience: Patience) -> None:
        self.client = client
        self._patience = patience

    async def whole(self, body: bytes, headers: Mapping[str, str]) -> Said:
        """Return an answer in one piece.

        Raises:
            ModelCallError: The server refused, or failed every time.
        """
        num_tried = 0
        while True:
            try:
                async with self.client.post(body, headers) as answer:
                    return _said(await answer.whole(), answer.headers)
            except BackendError as error:
                num_tried += 1
                await self._wait_or_raise(error, num_tried)

    @asynccontextmanager
    async def stream(
        self, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncGenerator[TextDelta | Said, None]]:
        """Open a streamed answer: texts, and at the end all of it.

        Raises:
            ModelCallError: As of ``whole``; or, while iterating, the stream broke or said so.
        """
        async with AsyncExitStack() as stack:
            yield _heard(await self._opened(stack, body, headers))

    async def _opened(
        self, stack: AsyncExitStack, body: bytes, headers: Mapping[str, str]
    ) -> ChatAnswer:
        num_tried = 0
        while True:
            try:
                return await stack.enter_async_context(self.client.post(body, headers))
            except BackendError as error:
                num_tried += 1
                await self._wait_or_raise(error, num_tried)

    async def _wait_or_raise(self, error: BackendError, num_tried: int) -> None:
        refused = error if isinstance(error, UpstreamRefusedError) else None
        final = refused is not None and refused.status not in TRY_AGAIN
        if final or num_tried >= self._patience.num_tries:
            raise _model_call_error(error, num_tried) from error
        asked_s = None if refused is None else refused.retry_after_s
        await anyio.sleep(self._patience.wait_s(num_tried, asked_s))


def _said(answer: dict[str, Any], headers: Mapping[str, str]) -> Said:
    (choice, *_) = answer.get("choices") or [{}]
    told = choice.get("message") or {}
    message: Message = {"role": "assistant", "content": told.get("content") or None}
    if told.get("tool_calls"):
        message["tool_calls"] = _with_ids(told["tool_calls"])
    usage, reason = Usage.of(answer.get("usage")), str(choice.get("finish_reason") or "")
    ended = TurnEnded(usage, reason, Decision.of(headers))
    return Said(message, ended, SESSION_HEADER in headers)


async def _heard(answer: ChatAnswer) -> AsyncGenerator[TextDelta | Said, None]:
    spoken, usage, reason = SpokenMessage(), Usage(), ""
    try:
        async for chunk in answer.chunks():
            if chunk.get("error"):
                raise ModelCallError(f"the stream ended with an error: {_message(chunk)}")
            spoken.hear(chunk)
            usage = Usage.of(chunk["usage"]) if chunk.get("usage") else usage
            for choice in chunk.get("choices") or ():
                reason = choice.get("finish_reason") or reason
                text = (choice.get("delta") or {}).get("content")
                if text:
                    yield TextDelta(text)
    except BackendError as error:
        raise _model_call_error(error, 1) from error
    message = spoken.message()
    message["content"] = message["content"] or None
    if "tool_calls" in message:
        message["tool_calls"] = _with_ids(message["tool_calls"])
    ended = TurnEnded(usage, reason, Decision.of(answer.headers))
    yield Said(message, ended, SESSION_HEADER in answer.headers)


def _with_ids(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return calls each of which has an id of its own, as results are told apart by them."""
    taken: set[str] = set()
    named = []
    for index, call in enumerate(calls):
        call_id = str(call.get("id") or "")
        if not call_id or call_id in taken:
            call_id = f"{call_id or 'call'}_{index}"
        taken.add(call_id)
        named.append(call if call.get("id") == call_id else {**call, "id": call_id})
    return named


def _model_call_error(error: BackendError, num_tried: int) -> ModelCallError:
    times = f" (tried {num_tried} times)" if num_tried > 1 else ""
    if not isinstance(error, UpstreamRefusedError):
        return ModelCallError(f"{error}{times}")
    try:
        body = json.loads(error.body)
    except (ValueError, RecursionError):
        return ModelCallError(f"{error}{times}", status=error.status)
    message = f"the server answered {error.status}: {_message(body)}{times}"
    return ModelCallError(message, status=error.status)


def _message(body: object) -> str:
    told = body.get("error") if isinstance(body, dict) else None
    return str(told.get("message", told)) if isinstance(told, dict) else str(told or body)
