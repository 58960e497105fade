"""``POST /v1/completions``: texts that go on with prompts, in vLLM 0.32's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from agent_runtime.emulated_model.reply import PieceKind, Reply, ReplyReader
from agent_runtime.emulated_model.token_logprobs import token_logprobs
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import AnswerHead, DialectName, TurnUsage
from agent_runtime.gateway.dialects.completions_reading import read_completion
from agent_runtime.gateway.dialects.completions_wire import CompletionRequest
from agent_runtime.gateway.dialects.openai_objects import (
    DONE,
    ObjectHead,
    broken_stream,
    usage_object,
)
from agent_runtime.gateway.neutral_request import NeutralRequest
from agent_runtime.gateway.planned_turn import PlannedTurn
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.turns import TurnProgress

KIND = "text_completion"
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class CompletionsDialect:
    """The dialect."""

    name: DialectName = DialectName.COMPLETIONS

    async def read(self, body: bytes, caller: Caller) -> tuple[CompletionRequest, NeutralRequest]:
        """Read a body."""
        return read_completion(body, caller)

    def form(
        self, request: CompletionRequest, turn: PlannedTurn, head: AnswerHead
    ) -> CompletionsForm:
        """Return what writes the answer."""
        return CompletionsForm(request, turn, head)


class CompletionsForm:
    """Writes one answer.

    Args:
        request: As it was asked.
        turn: What is said.
        head: The rest.
    """

    __slots__ = ("_choices", "_head", "_num_cached", "_options", "_turn")

    def __init__(self, request: CompletionRequest, turn: PlannedTurn, head: AnswerHead) -> None:
        self._turn = turn
        self._head = ObjectHead(f"cmpl-{head.request_id}", head.created, head.model)
        self._options = request.stream_options
        self._num_cached: dict[int, int] = {}
        self._choices = [
            _WrittenChoice(index, reply, request.logprobs)
            for index, reply in enumerate(turn.replies)
        ]

    def whole(self, used: TurnUsage) -> dict[str, Any]:
        """Return the body of a finished answer."""
        choices = [choice.take(choice.reply.num_tokens, last=True) for choice in self._choices]
        return {**self._head.of(KIND), "choices": choices, "usage": usage_object(used)}

    def opening(self) -> bytes:
        """Return nothing: clients take the first chunk for a token."""
        return b""

    def step(self, number: int, step: TurnProgress) -> bytes:
        """Return the chunk that a step makes."""
        choice = self._choices[number]
        self._num_cached.setdefault(number, step.num_cached_tokens)
        said = choice.take(step.num_new_tokens, last=step.finished)
        if not said["text"] and not step.finished and said["logprobs"] is None:
            return b""
        chunk: dict[str, Any] = {**self._head.of(KIND), "choices": [said]}
        if self._options is not None and self._options.continuous_usage_stats:
            num_prompt = self._turn.choices[number].prompt.num_tokens
            used = TurnUsage(num_prompt, choice.num_tokens, self._num_cached[number])
            chunk["usage"] = usage_object(used)
        return b"data: " + _encode(chunk) + b"\n\n"

    def closing(self, used: TurnUsage) -> bytes:
        """Return the end, after the usage if it was asked for."""
        if self._options is None or not self._options.include_usage:
            return DONE
        last = {**self._head.of(KIND), "choices": [], "usage": usage_object(used)}
        return b"data: " + _encode(last) + b"\n\n" + DONE

    def failure(self, error: RequestError | BackendError) -> bytes:
        """Return the error and the end."""
        return broken_stream(error)


class _WrittenChoice:
    """One choice, as far as it is written.

    Attributes:
        reply: What it says.
        num_tokens: Taken so far.
    """

    __slots__ = ("_index", "_num_chars", "_num_top", "_reader", "num_tokens", "reply")

    def __init__(self, index: int, reply: Reply, num_top: int | None) -> None:
        self._index = index
        self._num_top = num_top
        self._reader = ReplyReader(reply)
        self._num_chars = 0
        self.reply = reply
        self.num_tokens = 0

    def take(self, num_tokens: int, *, last: bool) -> dict[str, Any]:
        """Return the choice with what the next tokens show."""
        start = self.num_tokens
        self.num_tokens += num_tokens
        pieces = self._reader.take(num_tokens)
        return {
            "index": self._index,
            "text": "".join(p.text for p in pieces if p.kind is PieceKind.CONTENT),
            "logprobs": self._logprobs(start),
            "finish_reason": self.reply.finish_reason if last else None,
            "stop_reason": self.reply.stop_reason if last else None,
        }

    def _logprobs(self, start: int) -> dict[str, Any] | None:
        if self._num_top is None:
            return None
        entries = token_logprobs(self.reply, start, self.num_tokens, self._num_top)
        offsets = []
        for position in range(start, self.num_tokens):
            offsets.append(self._num_chars)
            self._num_chars += len(self.reply.token_text(position))
        return {
            "text_offset": offsets,
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries
            ],
        }
