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
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.dialects.chat_reading import read_chat
from agent_runtime.gateway.dialects.chat_wire import ChatRequest
from agent_runtime.gateway.dialects.openai_objects import DONE, broken_stream
from agent_runtime.gateway.error_mapping import error_response
from agent_runtime.gateway.neutral_request import NeutralRequest
from agent_runtime.gateway.opened_prompt import OpenedPrompt
from agent_runtime.gateway.paced_chunks import Chunk, Pacer, paced_chunks
from agent_runtime.gateway.turn_answer import TurnAnswer
from agent_runtime.gateway.turn_desk import TurnDesk
from agent_runtime.gateway.turn_stream import OpenedStream, StreamEnds, TurnStream
from agent_runtime.gateway.turn_terms import turn_terms
from agent_runtime.session_headers import SESSION_HEADER, header_of
from agent_runtime.spoken_message import SpokenMessage
from agent_runtime.turns import RunningTurn, TurnRequest
from scheduler.events import GapHint


@dataclass(frozen=True, slots=True)
class PacedChat:
    """A request on its way to both.

    Attributes:
        request: As it was asked.
        asked: Its body, which the real server gets.
        neutral: What it asks.
        prompt: Whose session is found.
    """

    request: ChatRequest
    asked: dict[str, Any]
    neutral: NeutralRequest
    prompt: OpenedPrompt


@dataclass(frozen=True, slots=True)
class PacedCompletions:
    """The endpoint.

    Attributes:
        desk: What is around its turns.
        upstream: Says what is answered.
    """

    desk: TurnDesk
    upstream: ChatUpstream

    async def answer(self, request: Request) -> ASGIApp:
        """Answer one request."""
        body, caller = await self.desk.take(request)
        chat, neutral = read_chat(body, caller)
        if neutral.num_choices > 1:
            raise InvalidRequestError("n: a paced answer has one choice", param="n")
        (prompt,) = await self.desk.opening.open(neutral)
        paced = PacedChat(chat, json.loads(body), neutral, prompt)
        headers = {SESSION_HEADER: header_of(prompt.session.public_id)}
        ends = StreamEnds(broken_stream, partial(error_response, path=request.scope["path"]))
        closing = self.desk.opening.closing
        if neutral.stream:
            open_stream = partial(self._opened, paced)
            return TurnStream(open_stream, ends, headers, self.desk.hold, closing)
        return TurnAnswer(partial(self._whole, paced), ends, headers, closing)

    def _turn_request(self, paced: PacedChat) -> TurnRequest:
        """Ask for as many tokens as there may be; how many there are is not known yet.

        A reply's words are not known either, so its own blocks are not found again.
        """
        cap, room = paced.neutral.length.max_tokens, self.desk.opening.room_tokens(paced.prompt)
        prompt = paced.prompt.plan(array("I"))
        session = paced.prompt.session
        terms = turn_terms(paced.neutral.hints, session, self.desk.opening.runner.now_s())
        return TurnRequest(
            turn_id=self.desk.opening.next_turn_id(),
            session_id=session.session_id,
            num_prompt_tokens=prompt.num_tokens,
            num_output_tokens=room if cap is None else min(cap, room),
            block_hashes=prompt.block_hashes,
            streams=paced.neutral.stream,
            gap=GapHint(lease_s=paced.neutral.hints.lease_s or 0.0),
            parent_id=terms.parent_id,
            tenant_id=terms.tenant_id,
            priority=terms.priority,
            deadline_s=terms.deadline_s,
            cache_salt=prompt.salt,
        )

    async def _begun(self, paced: PacedChat, stack: AsyncExitStack) -> RunningTurn:
        opening = self.desk.opening
        stack.enter_context(self.desk.limit.under_way())
        stack.enter_context(opening.turn_under_way(paced.prompt.session))
        return await stack.enter_async_context(opening.runner.open_turn(self._turn_request(paced)))

    async def _opened(self, paced: PacedChat, stack: AsyncExitStack) -> OpenedStream:
        turn = await self._begun(paced, stack)
        chunks = await stack.enter_async_context(self.upstream.stream(paced.asked))
        pacer = Pacer()
        released = await stack.enter_async_context(
            paced_chunks(chunks, turn, pacer, anyio.current_time)
        )
        return OpenedStream(self._events(paced, released, pacer))

    async def _whole(self, paced: PacedChat, stack: AsyncExitStack) -> Response:
        """Return the real server's answer once the rack has generated as many tokens."""
        turn = await self._begun(paced, stack)
        answer = await self.upstream.whole(paced.asked)
        usage = answer.get("usage") or {}
        turn.end_output(max(1, int(usage.get("completion_tokens") or 1)))
        async for step in turn:
            _tell_cached(usage, step.num_cached_tokens)
        self.upstream.lateness.count(0.0)
        for choice in (answer.get("choices") or ())[:1]:
            self._remember(paced, choice.get("message") or {})
        return JSONResponse(answer)

    async def _events(
        self, paced: PacedChat, chunks: AsyncIterator[Chunk], pacer: Pacer
    ) -> AsyncGenerator[bytes, None]:
        options = paced.request.stream_options
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
        self._remember(paced, said.message())
        yield DONE

    def _remember(self, paced: PacedChat, message: dict[str, Any]) -> None:
        digest = paced.prompt.digest_with({**message, "role": "assistant"}, array("I"))
        if digest is not None:
            session = paced.prompt.session
            self.desk.opening.sessions.remember(session, paced.neutral.keys, digest)


def _tell_cached(usage: dict[str, Any], num_cached_tokens: int) -> None:
    """Say what the rack's prefix cache had, not the real server's."""
    details = usage.get("prompt_tokens_details") or {}
    num_prompt = int(usage.get("prompt_tokens") or 0)
    details["cached_tokens"] = min(num_cached_tokens, num_prompt)
    usage["prompt_tokens_details"] = details
