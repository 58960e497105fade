"""``POST /v1/messages``: Anthropic's answers and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from agent_runtime.emulated_model.reply import Piece, PieceKind, Reply, ReplyReader
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import AnswerHead, DialectName, TurnUsage
from agent_runtime.gateway.dialects.call_arguments import parsed_arguments
from agent_runtime.gateway.dialects.messages_reading import read_messages
from agent_runtime.gateway.dialects.messages_wire import MessagesRequest
from agent_runtime.gateway.error_mapping import http_error
from agent_runtime.gateway.neutral_request import NeutralRequest
from agent_runtime.gateway.planned_turn import PlannedTurn
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.turns import TurnProgress

CALL_PREFIX = "toolu_"
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """The dialect."""

    name: DialectName = DialectName.MESSAGES

    async def read(self, body: bytes, caller: Caller) -> tuple[MessagesRequest, NeutralRequest]:
        """Read a body."""
        return read_messages(body, caller)

    def form(self, request: MessagesRequest, turn: PlannedTurn, head: AnswerHead) -> MessagesForm:  # noqa: ARG002 - protocol
        """Return what writes the answer."""
        return MessagesForm(turn, head)


class MessagesForm:
    """Writes one answer.

    A stream begins with its first token: only then is it known what the prefix cache had.

    Args:
        turn: What is said.
        head: The rest.
    """

    __slots__ = ("_block", "_head", "_num_blocks", "_num_sent", "_pinged", "_reader", "_turn")

    def __init__(self, turn: PlannedTurn, head: AnswerHead) -> None:
        self._turn, self._head = turn, head
        self._reader = ReplyReader(self._reply)
        self._block: tuple[PieceKind, int] | None = None  # the open one: text, or which call
        self._num_blocks = self._num_sent = 0
        self._pinged = False

    def whole(self, used: TurnUsage) -> dict[str, Any]:
        """Return the body of a finished answer."""
        message = self._reply.message()
        content: list[dict[str, Any]] = []
        if message["content"]:
            content.append({"type": "text", "text": message["content"]})
        for call in message.get("tool_calls", ()):
            function = call["function"]
            content.append(
                {
                    "type": "tool_use",
                    "id": _call_id(call["id"]),
                    "name": function["name"],
                    "input": parsed_arguments(function["arguments"]),
                }
            )
        return {**self._message(used), "content": content, **self._stopped()}

    def opening(self) -> bytes:
        """Return nothing: see the class."""
        return b""

    def step(self, number: int, step: TurnProgress) -> bytes:  # noqa: ARG002 - protocol
        """Return the events that a step makes."""
        events = b""
        if self._num_sent == 0:
            used = TurnUsage(self._turn.num_prompt_tokens, 1, step.num_cached_tokens)
            stopped = {"stop_reason": None, "stop_sequence": None}
            message = {**self._message(used), "content": [], **stopped}
            events = _event("message_start", message=message)
        self._num_sent += step.num_new_tokens
        for piece in self._reader.take(step.num_new_tokens):
            events += self._piece(piece)
        return events + self._close_block() if step.finished else events

    def closing(self, used: TurnUsage) -> bytes:
        """Return the last two events."""
        delta = _event("message_delta", delta=self._stopped(), usage=self._usage(used))
        return delta + _event("message_stop")

    def failure(self, error: RequestError | BackendError) -> bytes:
        """Return the error, which ends a stream."""
        return broken_message(error)

    @property
    def _reply(self) -> Reply:
        return self._turn.choices[0].reply

    def _piece(self, piece: Piece) -> bytes:
        if piece.kind is PieceKind.CONTENT:
            begun = self._open_block((PieceKind.CONTENT, 0), {"type": "text", "text": ""})
            return begun + self._delta({"type": "text_delta", "text": piece.text})
        call = self._reply.speech.calls[piece.call]
        begun = self._open_block(
            (PieceKind.CALL, piece.call),
            {"type": "tool_use", "id": _call_id(call.call_id), "name": call.name, "input": {}},
        )
        if piece.kind is PieceKind.CALL:
            return begun
        return begun + self._delta({"type": "input_json_delta", "partial_json": piece.text})

    def _open_block(self, block: tuple[PieceKind, int], content: dict[str, Any]) -> bytes:
        if self._block == block:
            return b""
        events = self._close_block()
        self._block = block
        self._num_blocks += 1
        events += _event("content_block_start", index=self._num_blocks - 1, content_block=content)
        if not self._pinged:
            self._pinged = True
            events += _event("ping")
        return events

    def _close_block(self) -> bytes:
        if self._block is None:
            return b""
        self._block = None
        return _event("content_block_stop", index=self._num_blocks - 1)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._num_blocks - 1, delta=delta)

    def _message(self, used: TurnUsage) -> dict[str, Any]:
        return {
            "id": f"msg_{self._head.request_id}",
            "type": "message",
            "role": "assistant",
            "model": self._head.model,
            "usage": self._usage(used),
        }

    def _usage(self, used: TurnUsage) -> dict[str, Any]:
        """Return the usage: what was in the cache, what is newly there, and the rest."""
        num_created = max(0, self._turn.num_breakpoint_tokens - used.num_cached)
        last = self._turn.request.cache_breakpoint
        is_hour = last is not None and last.lifetime_s >= 3600.0  # noqa: PLR2004 - an hour
        return {
            "input_tokens": used.num_prompt - used.num_cached - num_created,
            "cache_creation_input_tokens": num_created,
            "cache_read_input_tokens": used.num_cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 0 if is_hour else num_created,
                "ephemeral_1h_input_tokens": num_created if is_hour else 0,
            },
            "output_tokens": used.num_output,
        }

    def _stopped(self) -> dict[str, Any]:
        reply = self._reply
        if reply.stop_reason is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": reply.stop_reason}
        if reply.finish_reason == "length":
            reason = "max_tokens"
        else:
            reason = "tool_use" if reply.speech.calls else "end_turn"
        return {"stop_reason": reason, "stop_sequence": None}


def broken_message(error: RequestError | BackendError) -> bytes:
    """Return how a stream ends that broke."""
    return _event("error", error=http_error(error).anthropic_body["error"])


def _call_id(call_id: str) -> str:
    return CALL_PREFIX + call_id.removeprefix("chatcmpl-tool-")


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))
