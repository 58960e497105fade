"""What a request for a real engine asks, as far as the gateway needs to know; the rest passes.

Nothing is refused here but what is no JSON object: the engine knows best what it takes.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from agent_runtime.engine_call import EngineCall, ReplyReader, with_members
from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.relay_reply import StreamedReply, WholeReply
from agent_runtime.prompts.chat_prompt import PromptPiece, RenderedMessage, render_chat

CHAT_PATH, COMPLETIONS_PATH = "/v1/chat/completions", "/v1/completions"

CHANGES_REPLY = (
    "tools", "response_format", "structured_outputs", "logprobs", "top_logprobs",
    "prompt_logprobs", "stop", "echo", "return_token_ids", "return_tokens_as_token_ids",
    "continue_final_message", "use_beam_search", "functions", "best_of", "suffix",
)  # fmt: skip
"""Fields with which half a reply can't be gone on with as if it were whole."""


@dataclass(frozen=True, slots=True)
class RelayedCall:
    """A request as it came.

    Attributes:
        path: Where it was posted.
        body: As it was sent.
        fields: The same, parsed.
        headers: To pass on.
    """

    path: str
    body: bytes
    fields: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def model(self) -> str | None:
        """The model asked for."""
        model = self.fields.get("model")
        return model if isinstance(model, str) else None

    @property
    def session_key(self) -> str | None:
        """The session id in the body."""
        key = self.fields.get("session_id")
        return key if isinstance(key, str) and key else None

    @property
    def priority(self) -> int:
        """The caller's own."""
        priority = self.fields.get("priority") or self.headers.get("x-vllm-priority") or 0
        try:
            return int(priority)
        except (TypeError, ValueError):
            return 0

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream."""
        return bool(self.fields.get("stream"))

    @property
    def output_cap(self) -> int | None:
        """The most tokens the caller wants, if it said."""
        for name in ("max_completion_tokens", "max_tokens"):
            cap = self.fields.get(name)
            if isinstance(cap, int) and cap > 0:
                return cap
        return None

    def pieces(self) -> Sequence[PromptPiece]:
        """Return what the model sees; nothing where that can't be read: the engine refuses it."""
        if self.path == CHAT_PATH:
            return _chat_pieces(self.fields)
        return _prompt_pieces(self.fields.get("prompt"))

    def engine_call(self) -> EngineCall:
        """Return it for a first engine; usage is asked for in any case."""
        options = self.fields.get("stream_options")
        options = options if isinstance(options, dict) else {}
        reader: ReplyReader
        body = self.body
        if self.streams:
            wants = bool(options.get("include_usage"))
            reader = StreamedReply(wants_usage=wants)
            if not wants:
                asked = json.dumps({**options, "include_usage": True}).encode()
                body = with_members(body, b'"stream_options":' + asked)
        else:
            reader = WholeReply()
        return self._call(body, reader)

    def continuation(self, reader: ReplyReader) -> EngineCall | None:
        """Return a call that goes on where a reply broke off, or None if that can't be.

        Args:
            reader: Of what was passed on to the client.
        """
        if not isinstance(reader, StreamedReply) or not self._can_go_on():
            return None
        text = reader.text_to_go_on_with()
        if text is None:
            return None
        fields = self._gone_on_with(text, reader.num_output_tokens)
        if fields is None:
            return None
        options = {**(self.fields.get("stream_options") or {}), "include_usage": True}
        body = json.dumps({**fields, "stream_options": options}).encode()
        return self._call(body, reader.continuation())

    def _call(self, body: bytes, reader: ReplyReader) -> EngineCall:
        has_priority = "priority" in self.fields or "x-vllm-priority" in self.headers
        return EngineCall(self.path, body, reader, self.headers, has_priority=has_priority)

    def _can_go_on(self) -> bool:
        fields = self.fields
        options = fields.get("stream_options") or {}
        several = fields.get("n") not in {None, 1}
        return not (
            several
            or options.get("continuous_usage_stats")
            or any(bool(fields.get(name)) for name in _scalars(fields))
            or fields.get("add_generation_prompt") is False
        )

    def _gone_on_with(self, text: str, num_tokens: int) -> dict[str, Any] | None:
        fields = dict(self.fields)
        for name in ("max_completion_tokens", "max_tokens", "min_tokens"):
            if isinstance(fields.get(name), int):
                least = 0 if name == "min_tokens" else 1
                fields[name] = max(least, fields[name] - num_tokens)
        if not text:
            return fields
        if self.path == CHAT_PATH:
            messages = [*fields["messages"], {"role": "assistant", "content": text}]
            return {
                **fields,
                "messages": messages,
                "continue_final_message": True,
                "add_generation_prompt": False,
            }
        if not isinstance(fields.get("prompt"), str):
            return None
        fields.setdefault("max_tokens", max(1, DEFAULT_COMPLETION_TOKENS - num_tokens))
        return {**fields, "prompt": fields["prompt"] + text}


DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's and vLLM's, of ``/v1/completions`` without ``max_tokens``."""


def parse_relayed(path: str, body: bytes, headers: Mapping[str, str]) -> RelayedCall:
    """Read a request.

    Raises:
        InvalidRequestError: Not a JSON object.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return RelayedCall(path, body, fields, headers)


def _scalars(fields: Mapping[str, Any]) -> list[str]:
    """Return those fields that change a reply and are there; empty lists and objects are not."""
    return [name for name in CHANGES_REPLY if name in fields and not _is_empty(fields[name])]


def _is_empty(value: object) -> bool:
    return value in (None, [], {}, {"type": "text"})


def _chat_pieces(fields: Mapping[str, Any]) -> Sequence[PromptPiece]:
    messages, tools = fields.get("messages"), fields.get("tools")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return ()
    tools = tools if isinstance(tools, list) else []
    return render_chat([readable(message) for message in messages], tools)


def readable(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its images, sounds and whatever else told apart by their content."""
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        parts = content if isinstance(content, list) else [content]
        content = [_readable_part(part) for part in parts]
    return {**message, "role": str(message.get("role")), "content": content}


def _readable_part(part: object) -> dict[str, Any]:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return part
    digest = blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=16).hexdigest()
    return {"type": "text", "text": digest}


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """A prompt, or a part of one, that came as token ids."""

    ids: tuple[int, ...]
    role: str = "tokens"

    @property
    def digest(self) -> bytes:
        """Of the ids."""
        return blake2b(array("q", self.ids).tobytes(), digest_size=16).digest()

    def tokens(self) -> array[int]:
        """Return the ids."""
        return array("I", [token & 0xFFFFFFFF for token in self.ids])


PIECE_CHARACTERS, PIECE_TOKENS = 1024, 256
"""Prompts without messages are cut into pieces of so much: one that grows at its end keeps the
others, and only the last is counted and hashed again."""


def _prompt_pieces(prompt: object) -> Sequence[PromptPiece]:
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        starts = range(0, len(prompt), PIECE_CHARACTERS)
        return [RenderedMessage.of("prompt", prompt[s : s + PIECE_CHARACTERS]) for s in starts]
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        starts = range(0, len(prompt), PIECE_TOKENS)
        return [TokenPiece(tuple(prompt[s : s + PIECE_TOKENS])) for s in starts]
    return ()
