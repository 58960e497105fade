"""Chat completions and completions, relayed."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from typing_extensions import override

from agent_runtime.engine_call import ReplyReader, with_members
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import DialectName
from agent_runtime.gateway.dialects.openai_objects import broken_stream
from agent_runtime.gateway.dialects.prompt_cache_terms import retention_lease_s
from agent_runtime.gateway.relay.body_fields import ChatFields, read_chat_fields, read_fields
from agent_runtime.gateway.relay.chat_replies import StreamedReply, WholeReply
from agent_runtime.gateway.relay.relayed_api import (
    AskedOfEngine,
    Fields,
    NoHistory,
    ReadPrompt,
    RelayedPrompt,
    TextHistory,
    least_cap,
    text_of,
)
from agent_runtime.gateway.relay.unread_chat import UnreadChat
from agent_runtime.prompts.chat_prompt import RenderedMessage

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's and vLLM's, of ``/v1/completions`` without ``max_tokens``."""

CHANGES_REPLY = (
    "tools", "response_format", "structured_outputs", "logprobs", "top_logprobs",
    "prompt_logprobs", "stop", "echo", "return_token_ids", "return_tokens_as_token_ids",
    "continue_final_message", "use_beam_search", "functions", "best_of", "suffix",
)  # fmt: skip
"""Fields with which half a reply can't be gone on with as if it were whole."""


class _OpenAiTexts(ABC):
    """What both have in common."""

    takes_members = True

    def scope(self, fields: Fields) -> str | None:
        """Return the ``prompt_cache_key``."""
        return text_of(fields, "prompt_cache_key")

    def lease_s(self, fields: Fields) -> float | None:
        """Return what ``prompt_cache_retention`` comes to."""
        return retention_lease_s(text_of(fields, "prompt_cache_retention"))

    def output_cap(self, fields: Fields) -> int | None:
        """Return ``max_completion_tokens`` or ``max_tokens``."""
        return least_cap(fields, "max_completion_tokens", "max_tokens")

    def asked(self, fields: Fields, body: bytes) -> AskedOfEngine:
        """Return what a first engine is asked; usage is asked for in any case."""
        if not fields.get("stream"):
            return AskedOfEngine(body, WholeReply())
        options = fields.get("stream_options")
        options = options if isinstance(options, dict) else {}
        wants = bool(options.get("include_usage"))
        if not wants:
            told = json.dumps({**options, "include_usage": True}).encode()
            body = with_members(body, b'"stream_options":' + told)
        return AskedOfEngine(body, StreamedReply(wants_usage=wants))

    def continued(self, fields: Fields, reader: ReplyReader) -> AskedOfEngine | None:
        """Return what goes on after the text that was passed on; None for more than plain text."""
        if not isinstance(reader, StreamedReply) or not _can_go_on(fields):
            return None
        text = reader.text_to_go_on_with()
        if text is None:
            return None
        rest = _with_less_to_say(fields, reader.num_output_tokens)
        if text:
            with_text = self.with_text(rest, text, reader.num_output_tokens)
            if with_text is None:
                return None
            rest = with_text
        options = {**(fields.get("stream_options") or {}), "include_usage": True}
        body = json.dumps({**rest, "stream_options": options}).encode()
        return AskedOfEngine(body, reader.continuation())

    @abstractmethod
    def with_text(
        self, fields: dict[str, Any], text: str, num_tokens: int
    ) -> dict[str, Any] | None:
        """Return a request with what was generated of its reply in its prompt; None if it can't."""

    def broken(self, error: RequestError | BackendError, reader: ReplyReader) -> bytes:  # noqa: ARG002 - protocol
        """Return the error and ``[DONE]``."""
        return broken_stream(error)


class ChatApi(_OpenAiTexts):
    """``/v1/chat/completions``."""

    name = DialectName.CHAT
    path = "/v1/chat/completions"

    def read(self, body: bytes) -> ChatFields:
        """Return all members but the messages."""
        return read_chat_fields(body)

    def prompt(self, fields: Fields) -> RelayedPrompt:
        """Return the tools and the messages."""
        if not isinstance(fields, ChatFields) or not fields.messages.startswith(b"["):
            return ReadPrompt((), NoHistory())
        return UnreadChat(fields)

    @override
    def continued(self, fields: Fields, reader: ReplyReader) -> AskedOfEngine | None:
        """Return what goes on after the text that was passed on; None for more than plain text."""
        whole = fields.with_messages() if isinstance(fields, ChatFields) else fields
        return super().continued(whole, reader)

    @override
    def with_text(self, fields: dict[str, Any], text: str, num_tokens: int) -> dict[str, Any]:
        """Return the request with an unfinished message at the end of its messages."""
        messages = [*fields["messages"], {"role": "assistant", "content": text}]
        return {
            **fields,
            "messages": messages,
            "continue_final_message": True,
            "add_generation_prompt": False,
        }


class CompletionsApi(_OpenAiTexts):
    """``/v1/completions``."""

    name = DialectName.COMPLETIONS
    path = "/v1/completions"

    @override
    def output_cap(self, fields: Fields) -> int:
        """Return ``max_tokens``."""
        return least_cap(fields, "max_tokens") or DEFAULT_COMPLETION_TOKENS

    def read(self, body: bytes) -> dict[str, Any]:
        """Return all members."""
        return read_fields(body)

    def prompt(self, fields: Fields) -> RelayedPrompt:
        """Return the prompt, in pieces; nothing of several prompts."""
        prompt = fields.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
            prompt = prompt[0]
        if isinstance(prompt, str):
            starts = range(0, len(prompt), PIECE_CHARACTERS)
            texts = [RenderedMessage("prompt", prompt[s : s + PIECE_CHARACTERS]) for s in starts]
            return ReadPrompt(texts, TextHistory(prompt))
        if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
            starts = range(0, len(prompt), PIECE_TOKENS)
            pieces = [TokenPiece(tuple(prompt[s : s + PIECE_TOKENS])) for s in starts]
            return ReadPrompt(pieces, NoHistory())
        return ReadPrompt((), NoHistory())

    @override
    def with_text(
        self, fields: dict[str, Any], text: str, num_tokens: int
    ) -> dict[str, Any] | None:
        """Return the request with the text after its prompt."""
        if not isinstance(fields.get("prompt"), str):
            return None
        fields.setdefault("max_tokens", max(1, DEFAULT_COMPLETION_TOKENS - num_tokens))
        return {**fields, "prompt": fields["prompt"] + text}


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """A prompt, or a part of one, that came as token ids."""

    ids: tuple[int, ...]
    role: str = "tokens"

    @property
    def digest(self) -> bytes:
        """Of the ids."""
        return blake2b(array("q", self.ids).tobytes(), digest_size=16).digest()

    @property
    def fingerprint(self) -> int:
        """Of the ids."""
        return hash(self.ids)

    def tokens(self) -> array[int]:
        """Return the ids."""
        return array("I", [token & 0xFFFFFFFF for token in self.ids])


PIECE_CHARACTERS, PIECE_TOKENS = 1024, 256
"""Prompts without messages are cut into pieces of so much: one that grows at its end keeps the
others, and only the last is counted and hashed again."""


def _can_go_on(fields: Fields) -> bool:
    options = fields.get("stream_options") or {}
    return not (
        fields.get("n") not in {None, 1}
        or options.get("continuous_usage_stats")
        or any(bool(fields.get(name)) for name in _changing(fields))
        or fields.get("add_generation_prompt") is False
    )


def _changing(fields: Fields) -> Sequence[str]:
    """Return those fields that change a reply and are there; empty lists and objects are not."""
    nothing: tuple[Any, ...] = (None, [], {}, {"type": "text"})
    return [name for name in CHANGES_REPLY if name in fields and fields[name] not in nothing]


def _with_less_to_say(fields: Fields, num_tokens: int) -> dict[str, Any]:
    rest = dict(fields)
    for name in ("max_completion_tokens", "max_tokens", "min_tokens"):
        if isinstance(rest.get(name), int):
            least = 0 if name == "min_tokens" else 1
            rest[name] = max(least, rest[name] - num_tokens)
    return rest
