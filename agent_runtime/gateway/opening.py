"""The first half of a turn: read the body, find whose it is, bring its prompt up to date."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from agent_runtime.errors import (
    BodyTooLargeError,
    ContextTooLongError,
    RequestError,
    SessionStateError,
    TooManyRequestsError,
)
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.journal.session_journal import SessionJournal
from agent_runtime.gateway.kv_salt import kv_salt
from agent_runtime.gateway.models import Models
from agent_runtime.gateway.neutral_request import (
    CacheBreakpoint,
    ChatPrompt,
    NeutralPrompt,
    NeutralRequest,
    TextPrompt,
    TokenPrompt,
    wrong,
)
from agent_runtime.gateway.opened_prompt import OpenedChat, OpenedPrompt, OpenedText
from agent_runtime.gateway.session_directory import ChatSession, SessionDirectory
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.gateway.waiting_line import WaitingLine
from agent_runtime.prompts.chat_prompt import are_longer, chain_digests, render_chat
from agent_runtime.prompts.raw_prompt import PromptTrail, RawPrompt, token_array
from agent_runtime.prompts.tokeniser import is_longer, tokenise
from agent_runtime.turns import TurnRunner
from scheduler.ids import TurnId

MAX_VALUES = 4_000_000
"""Of a body: empty lists, of which 64 MiB hold 21 million, take 30 times their bytes once read."""
COUNTED_CONTEXTS = 4
"""Longer texts are not counted, either."""
MAX_LENGTH_DIGITS = 20
"""Of a body's length; Python reads no number of thousands of them."""


@dataclass(slots=True)
class Opening:
    """Opens requests.

    Attributes:
        runner: Runs turns.
        models: What is served.
        sessions: Who is talking.
        max_body_bytes: Larger bodies are refused.
        line: Of newcomers that wait to run.
        shares_kv: Whether tenants may find each other's KV.
        journal: Of sessions that are not known here; None where none are taken down.
        closing: Of the endpoint.
    """

    runner: TurnRunner
    models: Models
    sessions: SessionDirectory
    max_body_bytes: int
    line: WaitingLine
    shares_kv: bool = False
    journal: SessionJournal | None = None
    closing: Closing = field(default_factory=Closing)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def read(self, request: Request) -> bytes:
        """Return the body.

        Raises:
            BodyTooLargeError: Over the limit.
            ClientDisconnect: The client left.
        """
        limit, receive = self.max_body_bytes, request.receive
        num_bytes = _declared_bytes(request.scope)
        whole = BytesIO()  # pieces kept one by one leave holes between them: half as much again
        if num_bytes <= limit:
            num_bytes = 0
            more = True
            while more and num_bytes <= limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                num_bytes += whole.write(message.get("body", b""))
                more = message.get("more_body", False)
        if num_bytes > limit:
            raise BodyTooLargeError(f"the body is over the limit of {limit} bytes")
        body = whole.getvalue()
        if num_bytes > MAX_VALUES and body.count(b",") > MAX_VALUES:
            raise BodyTooLargeError(
                f"the body has more than {MAX_VALUES:,} commas: too many values to be read"
            )
        return body

    async def open(self, request: NeutralRequest) -> list[OpenedPrompt]:
        """Find the session of every prompt, and bring its memory up to it.

        Raises:
            InvalidRequestError: Content that can't be read.
            UnknownModelError: Another model.
            ContextTooLongError: No replica holds the prompt.
            SessionStateError: The session is paused.
            TooManyRequestsError: It is new, and as many wait as may be.
        """
        if request.model is not None:
            self.models.check(request.model)
        opened: list[OpenedPrompt] = []
        try:
            for prompt in request.prompts:
                opened.append(await self._open_prompt(prompt, request))  # noqa: PERF401 - see below
        except RequestError:
            for one in opened:
                self.refused(one.session)
            raise
        return opened

    def refused(self, session: ChatSession) -> None:
        """Take in that a turn was refused: a session that has had no other is forgotten."""
        if session.has_come_to_nothing:
            self.sessions.forget(session)
            self.runner.close_session(session.session_id)

    def salt(self, keys: SessionKeys) -> str | None:
        """Return what keeps a prompt's KV apart from others', see ``kv_salt``."""
        return kv_salt(keys, is_shared=self.shares_kv)

    @contextmanager
    def turn_under_way(self, session: ChatSession) -> Iterator[None]:
        """Keep a session from being forgotten while the context lasts.

        One that its owner closes meanwhile is closed for the runner once more at the end: what the
        turn has left there, nobody would ever take away.
        """
        session.num_active_turns += 1
        try:
            yield
        finally:
            session.num_active_turns -= 1
            if not session.num_active_turns and not self.sessions.knows(session.session_id):
                self.runner.close_session(session.session_id)

    def next_turn_id(self) -> TurnId:
        """Return an id that no turn had."""
        return TurnId(f"turn-{next(self._numbers)}")

    def room_tokens(self, prompt: OpenedPrompt) -> int:
        """Return how many tokens a reply may have."""
        return self.runner.max_context_tokens - prompt.num_tokens

    async def _open_prompt(self, prompt: NeutralPrompt, request: NeutralRequest) -> OpenedPrompt:
        match prompt:
            case ChatPrompt():
                return await self._open_chat(prompt, request)
            case TextPrompt(text=text):
                if is_longer([text], self.runner.max_context_tokens):
                    raise self._too_long(None, "prompt")
                return await self._open_text(text, tokenise(text), request)
            case TokenPrompt(tokens=tokens):
                try:
                    ids = token_array(tokens)
                except OverflowError as error:
                    raise wrong("prompt", "token ids are from 0 to 2**32 - 1") from error
                return await self._open_text(None, ids, request)

    async def _open_chat(self, prompt: ChatPrompt, request: NeutralRequest) -> OpenedChat:
        keys = request.keys
        rendered = render_chat(prompt.messages, prompt.tools)
        if are_longer(rendered, self.runner.max_context_tokens):
            raise self._too_long(None, "messages")
        by_history = keys.exact is None
        known_by = chain_digests(rendered) if by_history else ()
        session = await self.find_session(keys, known_by, request.hints.parent_session_id)
        num_tokens = session.memory.open_prompt(rendered, self.salt(keys))
        digests = session.memory.digests(rendered)
        if num_tokens >= self.runner.max_context_tokens:
            session.memory.clear()  # or refused prompts, however long, would be kept for long
            self.refused(session)
            raise self._too_long(num_tokens, "messages")
        own_digests = digests[len(digests) - len(prompt.messages) :]
        return OpenedChat(session, prompt.messages, own_digests, num_tokens, rendered)

    async def _open_text(
        self, text: str | None, tokens: array[int], request: NeutralRequest
    ) -> OpenedText:
        if not tokens:
            raise wrong("prompt", "an empty prompt can't be gone on with")
        if len(tokens) >= self.runner.max_context_tokens:
            raise self._too_long(len(tokens), "prompt")
        trail = PromptTrail(tokens.tobytes()) if text is None else PromptTrail.of_text(text)
        keys = request.keys
        session = await self.find_session(keys, trail.digests, request.hints.parent_session_id)
        raw = RawPrompt(tokens, self.runner.block_size_tokens, self.salt(keys))
        return OpenedText(session, text, raw, trail)

    async def find_session(
        self, keys: SessionKeys, digests: Sequence[bytes], parent_id: str | None
    ) -> ChatSession:
        """Return whose turn it is; a new session if nothing is known of it.

        A newcomer is turned away here, before its conversation is cut into tokens.

        Args:
            keys: What the request says of it.
            digests: Of the request's messages, for those it does not name.
            parent_id: The session that started it, if the request says: it is that from then on.

        Raises:
            InvalidRequestError: An id that can't be one.
            SessionStateError: The session is paused.
            TooManyRequestsError: It is new, and as many wait as may be.
        """
        if self.journal is not None:
            await self.journal.recall(keys, digests)
        now_s = anyio.current_time()
        for forgotten in self.sessions.forget_old(now_s):
            self.runner.close_session(forgotten)
        session = self.sessions.find(keys, digests, now_s)
        if session.paused:
            raise SessionStateError(
                f"The session `{session.public_id}` is paused; "
                f"POST /v1/sessions/{session.public_id}/resume lets its turns run.",
                param="session_id",
            )
        session.started_by(parent_id)
        if session.is_new:
            try:
                self.line.check(session.session_id, now_s)
            except TooManyRequestsError:
                self.sessions.turned_away(session)
                raise
        return session

    def check_countable(self, texts: Sequence[str], param: str) -> None:
        """Raise unless texts are short enough to be counted.

        Raises:
            ContextTooLongError: They are longer than several contexts.
        """
        if is_longer(texts, COUNTED_CONTEXTS * self.runner.max_context_tokens):
            raise self._too_long(None, param)

    def _too_long(self, num_tokens: int | None, param: str) -> ContextTooLongError:
        many = "more" if num_tokens is None else num_tokens
        return ContextTooLongError(
            f"This model's maximum context length is {self.runner.max_context_tokens} tokens. "
            f"However, your prompt contains {many} input tokens. Please shorten the "
            f"{param}.",
            param=param,
        )


def _declared_bytes(scope: Scope) -> float:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value) if len(value) <= MAX_LENGTH_DIGITS else math.inf
    return 0


def breakpoint_tokens(prompt: OpenedPrompt, breakpoint_: CacheBreakpoint | None) -> int:
    """Return how many tokens the prompt has up to a cache breakpoint; 0 without one."""
    if breakpoint_ is None or not isinstance(prompt, OpenedChat):
        return 0
    num_before = len(prompt.rendered) - len(prompt.messages)  # the tool definitions
    message = num_before + breakpoint_.message
    memory = prompt.session.memory
    if breakpoint_.num_chars is None:
        return memory.num_tokens_before(message + 1)
    text = prompt.rendered[message].text[: breakpoint_.num_chars]
    return memory.num_tokens_before(message) + 1 + len(tokenise(text))
