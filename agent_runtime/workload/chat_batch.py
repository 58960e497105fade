"""Reads OpenAI batch files: JSONL, a chat completion a line.

A line holds ``custom_id``, ``method``, ``url`` and the request as ``body``. Prompts are counted and
cut to KV blocks as the endpoint would, so requests that begin alike share KV. A request that goes
on where an earlier one's messages ended, with a reply between, is the next turn of its session; all
others start sessions of their own. All sessions start at 0.

How long a reply is the file does not say: as long as the one that a later request quotes, exactly
``max_tokens`` with ``ignore_eos``, and else drawn from the lengths of coding agents' replies, cut
at ``max_tokens``.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_runtime.errors import InvalidRequestError, TraceError
from agent_runtime.prompts.chat_prompt import (
    PromptMemory,
    RenderedMessage,
    chain_digests,
    render_chat,
)
from agent_runtime.workload.block_id_runs import BlockIdRun, runs_of
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from agent_runtime.workload.trace_lines import numbered_lines, wrong_value
from scheduler.ids import SessionId

BLOCK_SIZE_TOKENS = 64
MEDIAN_OSL, OSL_SIGMA = 220, 1.1
"""Outputs of coding agents: p50 214-252, p90 ~900 (TraceLab, kv-cache-tester)."""


Count = Annotated[int, Field(ge=1, le=1 << 31)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    messages: list[_Message] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None

    @property
    def cap(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    custom_id: str = Field(min_length=1)
    method: Literal["POST"] = "POST"
    url: Literal["/v1/chat/completions"]
    body: _Body


def is_chat_batch(first_line: bytes) -> bool:
    """Tell by a file's first line whether it is one."""
    return b'"custom_id"' in first_line and b'"body"' in first_line


def read_chat_batch(path: str | Path, *, limit: int | None = None, seed: int = 0) -> Workload:
    """Read a batch.

    Args:
        path: The file.
        limit: At most so many sessions, the first ones, with all their turns.
        seed: Of the replies' lengths.

    Raises:
        TraceError: The file can't be read, or a line is no such request; names line and field.
    """
    reader = _BatchReader(str(path), seed)
    for number, line in numbered_lines(str(path)):
        reader.add(line, number)
    if not reader.num_requests:
        raise TraceError("no requests in it; expected one JSON object a line", path=str(path))
    sessions = reader.sessions(limit)
    return Workload(
        name=Path(path).name,
        block_size_tokens=BLOCK_SIZE_TOKENS,
        sessions=sessions,
        notes=(reader.note(),),
        arrives_s=(0.0,) * len(sessions),
    )


@dataclass(slots=True)
class _Conversation:
    """A session while it is read; ``quoted`` are its replies, as the turn after quotes them."""

    name: str
    requests: list[tuple[_Body, list[RenderedMessage]]] = field(default_factory=list)
    quoted: list[RenderedMessage] = field(default_factory=list)


class _BatchReader:
    """Groups lines to conversations.

    Invariant: ``_by_history`` leads from messages to the conversations that have come so far, in
        their order; each is in it once, under its latest request.
    """

    def __init__(self, path: str, seed: int) -> None:
        self.num_requests = 0
        self.num_drawn = 0
        self._path = path
        self._seed = seed
        self._names: dict[str, int] = {}
        self._conversations: list[_Conversation] = []
        self._by_history: dict[bytes, deque[_Conversation]] = {}
        self._block_ids: dict[int, int] = {}

    def add(self, line: bytes, number: int) -> None:
        """Read one line."""
        request = self._parsed(line, number)
        if request.custom_id in self._names:
            problem = (
                f"{request.custom_id!r} is the id of line {self._names[request.custom_id]} too"
            )
            raise TraceError(problem, path=self._path, line=number, field="custom_id")
        self._names[request.custom_id] = number
        try:
            said = [message.model_dump() for message in request.body.messages]
            messages = render_chat(said, request.body.tools or ())
        except InvalidRequestError as error:
            place = f"body.{error.param}"
            raise TraceError(str(error), path=self._path, line=number, field=place) from error
        self.num_requests += 1
        digests = chain_digests(messages)
        conversation = self._found(messages, digests)
        if conversation is None:
            conversation = _Conversation(request.custom_id)
            self._conversations.append(conversation)
        conversation.requests.append((request.body, messages))
        self._by_history.setdefault(digests[-1], deque()).append(conversation)

    def sessions(self, limit: int | None) -> tuple[SessionScript, ...]:
        """Return what was read, at most so many sessions of it."""
        return tuple(
            self._script(index, conversation)
            for index, conversation in enumerate(self._conversations[:limit])
        )

    def note(self) -> str:
        """Return what a reader of the report should know."""
        return (
            f"{self.num_requests} requests in {len(self._conversations)} sessions in the file; "
            f"tokens are counted by an approximate tokeniser, {self.num_drawn} replies' lengths "
            "are drawn."
        )

    def _parsed(self, line: bytes, number: int) -> _Line:
        try:
            return _Line.model_validate_json(line)
        except ValidationError as error:
            raise wrong_value(error, path=self._path, line=number) from error

    def _found(self, messages: list[RenderedMessage], digests: list[bytes]) -> _Conversation | None:
        """Return the longest conversation that this goes on with, and note the reply it quotes."""
        for index in range(len(messages) - 2, -1, -1):
            reply = messages[index + 1]
            waiting = self._by_history.get(digests[index])
            if reply.role == "assistant" and waiting:
                conversation = waiting.popleft()
                conversation.quoted.append(reply)
                return conversation
        return None

    def _script(self, index: int, conversation: _Conversation) -> SessionScript:
        rng = np.random.default_rng([self._seed, index])
        memory = PromptMemory(BLOCK_SIZE_TOKENS)
        turns = []
        for number, (body, messages) in enumerate(conversation.requests):
            isl = memory.open_prompt(messages)
            if number < len(conversation.quoted):
                reply = conversation.quoted[number].tokens()
                osl, hashes = len(reply), memory.plan(reply).block_hashes
            else:
                osl, hashes = self._osl(body, rng), memory.plan(array("I")).block_hashes
            turns.append(ScriptedTurn(isl, max(1, osl), 0.0, self._runs(hashes)))
        return SessionScript(SessionId(conversation.name), tuple(turns))

    def _osl(self, body: _Body, rng: np.random.Generator) -> int:
        if body.ignore_eos and body.cap is not None:
            return body.cap
        self.num_drawn += 1
        drawn = max(
            1, body.min_tokens or 0, round(float(rng.lognormal(np.log(MEDIAN_OSL), OSL_SIGMA)))
        )
        return drawn if body.cap is None else min(drawn, body.cap)

    def _runs(self, hashes: tuple[int, ...]) -> tuple[BlockIdRun, ...]:
        """Return the blocks under small ids, in the order in which they are first met."""
        ids = self._block_ids
        return runs_of([ids.setdefault(block_hash, len(ids) + 1) for block_hash in hashes])
