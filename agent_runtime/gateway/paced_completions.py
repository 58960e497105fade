"""``POST /v1/chat/completions`` with a real model's words at the emulated rack's timing.

Every request goes to the rack and to a real server at once. The rack says when tokens come, the
server what they are; the turn ends when the server has said everything. A server that is slower
than the rack makes turns late, and is told of in ``upstream.lateness``.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.errors import BackendError, InvalidRequestError
from agent_runtime.gateway.chat_completions import CLIENT_CLOSED_REQUEST, HEADER_SAFE
from agent_runtime.gateway.chat_opening import ChatOpening, OpenedChat
from agent_runtime.gateway.error_mapping import runtime_error_response
from agent_runtime.gateway.paced_chunks import Chunk, Pacer, paced_chunks
from agent_runtime.gateway.turn_stream import TurnStream, leave_on_disconnect
from agent_runtime.gateway.wire import parse_chat_request
from agent_runtime.spoken_message import SpokenMessage
from agent_runtime.turns import RunningTurn, TurnRequest


@dataclass(slots=True)
class PacedCompletions:
    """The endpoint.

    Attributes:
        opening: Reads requests and finds their sessions.
        upstream: Says what is answered.
    """

    opening: ChatOpening
    upstream: ChatUpstream

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            body = await self.opening.read(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        chat = parse_chat_request(body)
        if (chat.n or 1) > 1:
            raise InvalidRequestError("n: a paced answer has one choice", param="n")
        opened = self.opening.open(chat, request)
        asked: dict[str, Any] = json.loads(body)
        headers = {"x-session-id": quote(opened.session.session_id, safe=HEADER_SAFE)}
        async with AsyncExitStack() as opening:
            opening.enter_context(opened.session.turn_under_way())
            turn = await opening.enter_async_context(
                self.opening.runner.open_turn(self._turn_request(opened))
            )
            if not chat.stream:
                return await self._whole(opened, asked, turn, request, headers)
            chunks = await opening.enter_async_context(self.upstream.stream(asked))
            pacer = Pacer()
            paced = await opening.enter_async_context(
                paced_chunks(chunks, turn, pacer, anyio.current_time)
            )
            stack = opening.pop_all()  # nothing is awaited from here to whoever closes it
        return TurnStream(self._events(opened, paced, pacer), stack, headers)

    def _turn_request(self, opened: OpenedChat) -> TurnRequest:
        """Ask for as many tokens as there may be; how many there are is not known yet.

        A reply's words are not known either, so its own blocks are not found again.
        """
        cap, room = opened.request.output_cap, self.opening.room_tokens(opened)
        prompt = opened.session.memory.plan(array("I"))
        return TurnRequest(
            turn_id=self.opening.next_turn_id(),
            session_id=opened.session.session_id,
            num_prompt_tokens=prompt.num_tokens,
            num_output_tokens=room if cap is None else min(cap, room),
            block_hashes=prompt.block_hashes,
            streams=bool(opened.request.stream),
        )

    async def _whole(
        self,
        opened: OpenedChat,
        asked: dict[str, Any],
        turn: RunningTurn,
        request: Request,
        headers: dict[str, str],
    ) -> Response:
        answer: dict[str, Any] = {}
        failure: Response | None = None
        async with leave_on_disconnect(request.receive) as left:
            try:
                answer = await self.upstream.whole(asked)
                usage = answer.get("usage") or {}
                turn.end_output(max(1, int(usage.get("completion_tokens") or 1)))
                async for step in turn:
                    _tell_cached(usage, step.num_cached_tokens)
            except BackendError as error:
                failure = runtime_error_response(error)
        if failure is not None:
            return failure
        if left.is_set():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        self.upstream.lateness.count(0.0)
        for choice in (answer.get("choices") or ())[:1]:
            self._remember(opened, choice.get("message") or {})
        return JSONResponse(answer, headers=headers)

    async def _events(
        self, opened: OpenedChat, chunks: AsyncIterator[Chunk], pacer: Pacer
    ) -> AsyncGenerator[bytes, None]:
        options = opened.request.stream_options
        wants_usage = options is not None and bool(options.include_usage)
        always = options is not None and bool(options.continuous_usage_stats)
        said = SpokenMessage()
        async for chunk in chunks:
            said.hear(chunk)
            if chunk.get("choices") and not always:
                chunk.pop("usage", None)
            if chunk.get("choices") or wants_usage:
                data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
                yield f"data: {data}\n\n".encode()
        self.upstream.lateness.count(pacer.late_s)
        self._remember(opened, said.message())

    def _remember(self, opened: OpenedChat, message: dict[str, Any]) -> None:
        digest = opened.digest_with({**message, "role": "assistant"})
        self.opening.sessions.remember(opened.session, digest)


def _tell_cached(usage: dict[str, Any], num_cached_tokens: int) -> None:
    """Say what the rack's prefix cache had, not the real server's."""
    details = usage.get("prompt_tokens_details") or {}
    num_prompt = int(usage.get("prompt_tokens") or 0)
    details["cached_tokens"] = min(num_cached_tokens, num_prompt)
    usage["prompt_tokens_details"] = details
