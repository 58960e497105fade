"""The chunks of a streamed answer, as bytes, in vLLM 0.32's form.

All that stays the same from token to token is encoded once a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agent_runtime.emulated_model.reply import Piece, PieceKind, Reply, ReplyReader
from agent_runtime.emulated_model.token_logprobs import token_logprobs
from agent_runtime.gateway.dialect import TurnUsage
from agent_runtime.gateway.dialects.openai_objects import ObjectHead, usage_object
from agent_runtime.turns import TurnProgress

_encode = msgspec.json.Encoder().encode
_GOING_ON = b',"logprobs":null,"finish_reason":null}]}\n\n'
_GOING_ON_WITH_TEXT = b"}" + _GOING_ON


class ChoiceChunks:
    """Turns one choice's progress into chunks.

    Args:
        head: What the answer's objects begin with.
        index: Of the choice.
        reply: What it says.
        num_prompt_tokens: For usage.
        with_usage: Whether every chunk carries it.
        num_top_logprobs: How many a token has, or None for none.
    """

    __slots__ = (
        "_head",
        "_num_prompt_tokens",
        "_num_top_logprobs",
        "_reader",
        "_reply",
        "_text_head",
        "_with_usage",
        "num_cached_tokens",
        "num_sent_tokens",
    )

    def __init__(
        self,
        head: ObjectHead,
        index: int,
        reply: Reply,
        *,
        num_prompt_tokens: int,
        with_usage: bool = False,
        num_top_logprobs: int | None = None,
    ) -> None:
        envelope = _encode(head.of("chat.completion.chunk"))[:-1]
        self._head = b'data: %b,"choices":[{"index":%d,"delta":' % (envelope, index)
        self._text_head = self._head + b'{"content":'
        self._reply = reply
        self._reader = ReplyReader(reply)
        self._num_prompt_tokens = num_prompt_tokens
        self._with_usage = with_usage
        self._num_top_logprobs = num_top_logprobs
        self.num_sent_tokens = 0
        self.num_cached_tokens = 0

    def of(self, step: TurnProgress) -> bytes:
        """Return the chunks that a step's tokens make, none if they show nothing yet."""
        chunks = b""
        if self.num_sent_tokens == 0:  # not earlier: clients take the first chunk for a token
            self.num_cached_tokens = step.num_cached_tokens
            chunks = self._chunk({"role": "assistant", "content": ""})
        start = self.num_sent_tokens
        self.num_sent_tokens += step.num_new_tokens
        pieces = self._reader.take(step.num_new_tokens)
        plain = not step.finished and self._num_top_logprobs is None and not self._with_usage
        if plain and len(pieces) == 1 and pieces[0].kind is PieceKind.CONTENT:
            return chunks + self._text_head + _encode(pieces[0].text) + _GOING_ON_WITH_TEXT
        logprobs = self._logprobs(start)
        deltas = self._deltas(pieces)
        if not deltas and (step.finished or logprobs is not None):
            deltas = [{}]
        for number, delta in enumerate(deltas, start=1):
            chunks += self._chunk(
                delta,
                logprobs=logprobs if number == 1 else None,
                last=step.finished and number == len(deltas),
            )
        return chunks

    def _logprobs(self, start: int) -> dict[str, Any] | None:
        if self._num_top_logprobs is None:
            return None
        stop = self.num_sent_tokens
        return {"content": token_logprobs(self._reply, start, stop, self._num_top_logprobs)}

    def _deltas(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        for piece in pieces:
            match piece.kind:
                case PieceKind.CONTENT:
                    deltas.append({"content": piece.text})
                case PieceKind.CALL:
                    call = self._reply.speech.calls[piece.call]
                    opened = {
                        "index": piece.call,
                        "id": call.call_id,
                        "type": "function",
                        "function": {"name": call.name},
                    }
                    deltas.append({"tool_calls": [opened]})
                case PieceKind.ARGUMENTS:
                    more = {"index": piece.call, "function": {"arguments": piece.text}}
                    deltas.append({"tool_calls": [more]})
                case PieceKind.MARKUP:
                    pass
        return deltas

    def _chunk(
        self, delta: dict[str, Any], *, logprobs: dict[str, Any] | None = None, last: bool = False
    ) -> bytes:
        rest: dict[str, Any] = {"logprobs": logprobs, "finish_reason": None}
        if last:
            rest["finish_reason"] = self._reply.finish_reason
            rest["stop_reason"] = self._reply.stop_reason
        used = b""
        if self._with_usage:
            now = TurnUsage(self._num_prompt_tokens, self.num_sent_tokens, self.num_cached_tokens)
            used = b',"usage":' + _encode(usage_object(now))
        return b"%b%b,%b]%b}\n\n" % (self._head, _encode(delta), _encode(rest)[1:], used)


def usage_chunk(head: ObjectHead, used: dict[str, Any]) -> bytes:
    """Return the chunk that closes a stream with ``include_usage``."""
    closing = {**head.of("chat.completion.chunk"), "choices": [], "usage": used}
    return b"data: %b\n\n" % _encode(closing)
