"""``POST /v1/chat/completions``: find the session, plan the replies, run the turns, send them."""

from __future__ import annotations

import string
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.model_call import Conversation, ModelCall
from agent_runtime.emulated_model.reply import Reply
from agent_runtime.emulated_model.reply_limits import ReplyLimits
from agent_runtime.errors import BackendError
from agent_runtime.gateway.asked_of_model import asked_of_model
from agent_runtime.gateway.chat_answer import AnswerHead, whole_answer
from agent_runtime.gateway.chat_chunks import ChoiceChunks, usage_chunk
from agent_runtime.gateway.chat_opening import ChatOpening, OpenedChat
from agent_runtime.gateway.error_mapping import runtime_error_response
from agent_runtime.gateway.merged_progress import Numbered, merged_progress
from agent_runtime.gateway.session_directory import ChatSession
from agent_runtime.gateway.turn_stream import TurnStream, leave_on_disconnect
from agent_runtime.gateway.wire import ChatRequest, parse_chat_request, usage
from agent_runtime.prompts.chat_prompt import (
    Prompt,
)
from agent_runtime.turns import TurnRequest
from scheduler.events import GapCause, GapHint

CLIENT_CLOSED_REQUEST = 499
HEADER_SAFE = string.punctuation.replace("%", "") + " "
"""What a session id keeps in a header; the rest, such as non-ASCII, is percent-encoded."""


@dataclass(frozen=True, slots=True)
class ChatChoice:
    """One of the replies to a request; each is a turn on the engine.

    Attributes:
        reply: What is said.
        prompt: The request's prompt with the hashes this reply leads to.
        digest: Of the conversation with this reply.
    """

    reply: Reply
    prompt: Prompt
    digest: bytes


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A request that is ready to run."""

    request: ChatRequest
    session: ChatSession
    choices: tuple[ChatChoice, ...]

    @property
    def num_prompt_tokens(self) -> int:
        """Of the prompt that all choices share."""
        return self.choices[0].prompt.num_tokens


@dataclass(slots=True)
class ChatCompletions:
    """The endpoint.

    Attributes:
        opening: Reads requests and finds their sessions.
        model: The model's name, as answers give it.
        emulated_model: Says what is answered.
        epoch_s: Seconds since 1970, for ``created``.
    """

    opening: ChatOpening
    model: str
    emulated_model: EmulatedModel
    epoch_s: Callable[[], float]

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            body = await self.opening.read(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        turn = self._prepare(self.opening.open(parse_chat_request(body), request))
        live = bool(turn.request.stream)
        async with AsyncExitStack() as opening:
            opening.enter_context(turn.session.turn_under_way())
            progress = [
                await opening.enter_async_context(
                    self.opening.runner.open_turn(self._turn_request(turn, choice, streams=live))
                )
                for choice in turn.choices
            ]
            steps = await opening.enter_async_context(merged_progress(progress, live=live))
            stack = opening.pop_all()  # nothing is awaited from here to whoever closes it
        headers = {"x-session-id": quote(turn.session.session_id, safe=HEADER_SAFE)}
        answer_id = f"chatcmpl-{request.state.request_id}"
        head = AnswerHead(answer_id, int(self.epoch_s()), self.model)
        if live:
            return TurnStream(self._events(turn, head, steps), stack, headers)
        async with stack:
            return await self._whole(turn, head, steps, request, headers)

    def _prepare(self, opened: OpenedChat) -> ChatTurn:
        chat = opened.request
        asked = asked_of_model(chat)
        conversation = Conversation(opened.session.session_id, opened.raw_messages, opened.digests)
        limits = ReplyLimits(
            max_tokens=chat.output_cap,
            min_tokens=chat.min_tokens or 0,
            ignore_eos=bool(chat.ignore_eos),
            room=self.opening.room_tokens(opened),
        )
        choices = []
        for index in range(chat.n or 1):
            call = ModelCall(
                conversation,
                asked.tools,
                asked.answer_format,
                limits,
                asked.stops,
                chat.seed,
                index,
                chat.n or 1,
            )
            reply = self.emulated_model.reply(call)
            prompt = opened.session.memory.plan(reply.tokens)
            choices.append(ChatChoice(reply, prompt, opened.digest_with(reply.message())))
        return ChatTurn(chat, opened.session, tuple(choices))

    def _turn_request(self, turn: ChatTurn, choice: ChatChoice, *, streams: bool) -> TurnRequest:
        return TurnRequest(
            turn_id=self.opening.next_turn_id(),
            session_id=turn.session.session_id,
            num_prompt_tokens=choice.prompt.num_tokens,
            num_output_tokens=choice.reply.num_tokens,
            block_hashes=choice.prompt.block_hashes,
            streams=streams,
            gap=_gap_after(choice.reply),
            token_ids=choice.prompt.token_ids,
            names_session=turn.session.is_named,
            max_output_tokens=turn.request.output_cap,
        )

    async def _whole(
        self,
        turn: ChatTurn,
        head: AnswerHead,
        steps: AsyncIterator[Numbered],
        request: Request,
        headers: dict[str, str],
    ) -> Response:
        num_cached = 0
        failure: Response | None = None
        async with leave_on_disconnect(request.receive) as left:
            try:
                async for number, step in steps:
                    if number == 0:
                        num_cached = step.num_cached_tokens
            except BackendError as error:
                failure = runtime_error_response(error)
        if failure is not None:
            return failure
        if left.is_set():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        for choice in turn.choices:
            self.opening.sessions.remember(turn.session, choice.digest)
        replies = [choice.reply for choice in turn.choices]
        used = usage(turn.num_prompt_tokens, sum(r.num_tokens for r in replies), num_cached)
        body = whole_answer(head, replies, used, turn.request.num_top_logprobs)
        return JSONResponse(body, headers=headers)

    async def _events(
        self, turn: ChatTurn, head: AnswerHead, steps: AsyncIterator[Numbered]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of a streamed answer."""
        options = turn.request.stream_options
        chunks = [
            ChoiceChunks(
                head,
                index,
                choice.reply,
                num_prompt_tokens=turn.num_prompt_tokens,
                with_usage=options is not None and bool(options.continuous_usage_stats),
                num_top_logprobs=turn.request.num_top_logprobs,
            )
            for index, choice in enumerate(turn.choices)
        ]
        async for number, step in steps:
            if step.finished:
                self.opening.sessions.remember(turn.session, turn.choices[number].digest)
            if event := chunks[number].of(step):
                yield event
        if options is not None and options.include_usage:
            num_output = sum(choice.num_sent_tokens for choice in chunks)
            num_cached = chunks[0].num_cached_tokens
            yield usage_chunk(head, usage(turn.num_prompt_tokens, num_output, num_cached))


def _gap_after(reply: Reply) -> GapHint:
    """Return what a session does after a reply: run the tools it calls, or wait for its user."""
    if reply.finish_reason != "tool_calls":
        return GapHint(GapCause.HUMAN)
    return GapHint(GapCause.TOOL, tuple(call.name for call in reply.speech.calls))
