"""``POST /v1/chat/completions``: find the session, plan the reply, run the turn, stream it back."""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_runtime.errors import (
    BackendError,
    BodyTooLargeError,
    ContextTooLongError,
)
from agent_runtime.gateway.emulated_reply import EmulatedReply, ReplyLimits, emulated_reply
from agent_runtime.gateway.error_mapping import runtime_error_response
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.session_directory import ChatSession, SessionDirectory
from agent_runtime.gateway.wire import ChatAnswer, ChatRequest, parse_chat_request, usage
from agent_runtime.prompts.chat_prompt import (
    Prompt,
    PromptMemory,
    RenderedMessage,
    chain_digests,
    render_chat,
)
from agent_runtime.turns import TurnProgress, TurnRequest, TurnRunner
from scheduler.ids import TurnId

CLIENT_CLOSED_REQUEST = 499
HEADER_SAFE = string.punctuation.replace("%", "") + " "
"""What a session id keeps in a header; the rest, such as non-ASCII, is percent-encoded."""


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A request that is ready to run."""

    request: ChatRequest
    session: ChatSession
    digest: bytes
    prompt: Prompt
    reply: EmulatedReply


@dataclass(slots=True)
class ChatCompletions:
    """The endpoint.

    Attributes:
        runner: Runs turns.
        models: What is served.
        model: Its name, as answers give it.
        seed: Of the emulated text.
        max_body_bytes: Larger bodies are refused.
        epoch_s: Seconds since 1970, for ``created``.
        sessions: Who is talking.
    """

    runner: TurnRunner
    models: Models
    model: str
    seed: int
    max_body_bytes: int
    epoch_s: Callable[[], float]
    sessions: SessionDirectory
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            body = await self._read(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        turn = self._prepare(parse_chat_request(body), request)
        async with AsyncExitStack() as opening:
            opening.enter_context(turn.session.turn_under_way())
            progress = await opening.enter_async_context(
                self.runner.open_turn(
                    TurnRequest(
                        turn_id=TurnId(f"turn-{next(self._numbers)}"),
                        session_id=turn.session.session_id,
                        num_prompt_tokens=turn.prompt.num_tokens,
                        num_output_tokens=turn.reply.num_tokens,
                        block_hashes=turn.prompt.block_hashes,
                    )
                )
            )
            stack = opening.pop_all()  # nothing is awaited from here to whoever closes it
        headers = {"x-session-id": quote(turn.session.session_id, safe=HEADER_SAFE)}
        answer_id = f"chatcmpl-{request.state.request_id}"
        answer = ChatAnswer(answer_id, int(self.epoch_s()), self.model)
        if turn.request.stream:
            return _TurnStream(self._events(turn, answer, progress), stack, headers)
        async with stack:
            return await self._whole(turn, answer, progress, request, headers)

    async def _read(self, request: Request) -> bytes:
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

    def _prepare(self, chat: ChatRequest, request: Request) -> ChatTurn:
        if chat.model is not None:
            self.models.check(chat.model)
        messages = render_chat([m.model_dump() for m in chat.messages], chat.tools or ())
        digests = chain_digests(messages)
        now_s = anyio.current_time()
        key = chat.session_id
        if key is None and "x-session-id" in request.headers:
            key = _from_header(request.headers["x-session-id"])
        for forgotten in self.sessions.forget_old(now_s):
            self.runner.close_session(forgotten)
        session = self.sessions.find(key, digests, now_s)
        num_prompt = self._open_prompt(session.memory, messages)
        reply = emulated_reply(
            self._reply_limits(chat, num_prompt), seed=self.seed, prompt_digest=digests[-1]
        )
        said = RenderedMessage.of("assistant", reply.text())
        digest = chain_digests([*messages, said])[-1]
        return ChatTurn(chat, session, digest, session.memory.plan(reply.tokens()), reply)

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

    def _reply_limits(self, chat: ChatRequest, num_prompt: int) -> ReplyLimits:
        return ReplyLimits(
            max_tokens=chat.output_cap,
            min_tokens=chat.min_tokens or 0,
            ignore_eos=bool(chat.ignore_eos),
            room=self.runner.max_context_tokens - num_prompt,
        )

    async def _whole(
        self,
        turn: ChatTurn,
        answer: ChatAnswer,
        progress: AsyncIterator[TurnProgress],
        request: Request,
        headers: dict[str, str],
    ) -> Response:
        num_cached = 0
        failure: Response | None = None
        async with _leave_on_disconnect(request.receive) as left:
            try:
                async for step in progress:
                    num_cached = step.num_cached_tokens
            except BackendError as error:
                failure = runtime_error_response(error)
        if failure is not None:
            return failure
        if left.is_set():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        self.sessions.remember(turn.session, turn.digest)
        body = answer.whole(
            turn.reply.text(),
            turn.reply.finish_reason,
            usage(turn.prompt.num_tokens, turn.reply.num_tokens, num_cached),
        )
        return JSONResponse(body, headers=headers)

    async def _events(
        self, turn: ChatTurn, answer: ChatAnswer, progress: AsyncIterator[TurnProgress]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer."""
        options = turn.request.stream_options
        always = options is not None and bool(options.continuous_usage_stats)
        num_sent = num_cached = 0

        def now_used() -> dict[str, Any]:
            return usage(turn.prompt.num_tokens, num_sent, num_cached)

        async for step in progress:
            if num_sent == 0:  # not earlier: clients take the first chunk for the first token
                opening = {"role": "assistant", "content": ""}
                yield answer.chunk(opening, usage=now_used() if always else None)
            text = turn.reply.text(num_sent, num_sent + step.num_new_tokens)
            num_sent += step.num_new_tokens
            num_cached = step.num_cached_tokens
            if step.finished:
                self.sessions.remember(turn.session, turn.digest)
            yield answer.chunk(
                {"content": text},
                turn.reply.finish_reason if step.finished else None,
                now_used() if always else None,
            )
        if options is not None and options.include_usage:
            yield answer.usage_chunk(now_used())


class _TurnStream(Response):
    """Server-sent events; ends the turn when the client leaves or everything is sent."""

    def __init__(
        self,
        events: AsyncGenerator[dict[str, Any], None],
        stack: AsyncExitStack,
        headers: dict[str, str],
    ) -> None:
        self._events, self._stack = events, stack
        super().__init__(headers={**headers, "cache-control": "no-cache"})
        self.raw_headers = [
            *((k, v) for k, v in self.raw_headers if k not in {b"content-length", b"content-type"}),
            (b"content-type", b"text/event-stream; charset=utf-8"),
        ]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack, aclosing(self._events) as events:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async with _leave_on_disconnect(receive):
                try:
                    async for event in events:
                        data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
                        await _send_body(send, f"data: {data}\n\n".encode(), more=True)
                except BackendError as error:
                    body = bytes(runtime_error_response(error).body)
                    await _send_body(send, b"data: " + body + b"\n\n", more=True)
                await _send_body(send, b"data: [DONE]\n\n", more=False)


async def _send_body(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


@asynccontextmanager
async def _leave_on_disconnect(receive: Receive) -> AsyncIterator[anyio.Event]:
    """Cancel what runs inside when the client goes away; the event then says so."""
    left = anyio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield left
        tasks.cancel_scope.cancel()


def _from_header(value: str) -> str:
    """Return the id that a header means, so that what we sent percent-encoded finds back.

    Starlette reads headers as Latin-1; clients that write non-ASCII as it is write UTF-8.
    """
    return unquote(value.encode("latin-1"), errors="backslashreplace")
