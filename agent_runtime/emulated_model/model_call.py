"""What one request asks of the model, and what can be read from its conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np

from agent_runtime.emulated_model.reply import NO_STOPS, StopStrings
from agent_runtime.emulated_model.reply_limits import ReplyLimits
from agent_runtime.json_sampling.regular_pattern import RegularPattern
from agent_runtime.json_sampling.schema_document import MAX_EFFORT, Schema

LEAST_EFFORT = 1_000
"""However many choices there are: enough for values of 300 members."""


class ToolMode(Enum):
    """Whether tools are called."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the caller offers.

    Attributes:
        name: Of the function.
        parameters: JSON schema of its arguments, or None.
        place: Where ``parameters`` stands in the request.
    """

    name: str
    parameters: Schema | None
    place: str


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """The tools that may be called, and whether to.

    Attributes:
        tools: Those allowed; the one that is named if one is.
        mode: Whether to call.
        parallel: Whether several may be called at once.
    """

    tools: tuple[Tool, ...] = ()
    mode: ToolMode = ToolMode.NONE
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class FreeText:
    """Anything."""


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """JSON that satisfies a schema; ``place`` says where that stands in the request."""

    schema: Schema
    place: str


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """One of these texts."""

    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PatternAnswer:
    """Text that matches a pattern as a whole; ``place`` says where that stands in the request."""

    pattern: RegularPattern
    place: str


AnswerFormat: TypeAlias = FreeText | JsonAnswer | ChoiceAnswer | PatternAnswer


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a request.

    Attributes:
        session_id: Whose.
        messages: As the caller sent them.
        digests: Per message one of it and all before it, tools included.
    """

    session_id: str
    messages: Sequence[Mapping[str, Any]]
    digests: Sequence[bytes]

    @property
    def assistant_turn(self) -> int:
        """Which turn of the assistant this is, from 1."""
        return 1 + len([message for message in self.messages if message["role"] == "assistant"])

    @property
    def since_user(self) -> Sequence[Mapping[str, Any]]:
        """The messages after the last one of the user."""
        return self.messages[self._last_user + 1 :]

    @property
    def user_digest(self) -> bytes:
        """Digest of the conversation up to the user's last message."""
        return self.digests[max(0, self._last_user)]

    @property
    def num_tool_steps(self) -> int:
        """Assistant's messages with tool calls since the user's last message."""
        return len([message for message in self.since_user if message.get("tool_calls")])

    @property
    def _last_user(self) -> int:
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index]["role"] == "user":
                return index
        return -1


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One choice of one request.

    Attributes:
        conversation: What was said before.
        tools: What may be called.
        answer_format: What a text must be.
        limits: Of the length.
        stops: What ends it.
        seed: The caller's, or None.
        choice: Which of the request's ``n`` this is, from 0.
        num_choices: ``n``; they share what a request may cost.
    """

    conversation: Conversation
    tools: ToolOffer
    answer_format: AnswerFormat
    limits: ReplyLimits
    stops: StopStrings = NO_STOPS
    seed: int | None = None
    choice: int = 0
    num_choices: int = 1

    @property
    def max_effort(self) -> int:
        """Schema nodes that may be visited for one value."""
        return max(MAX_EFFORT // self.num_choices, LEAST_EFFORT)

    def rng(self, seed: int) -> np.random.Generator:
        """Return the generator of this choice: of the model's seed, the prompt and the caller's."""
        mixed = [seed, int.from_bytes(self.conversation.digests[-1][:8]), self.choice]
        if self.seed is not None:
            mixed += [1, abs(self.seed), int(self.seed < 0)]
        return np.random.default_rng(mixed)

    def call_id(self, index: int) -> str:
        """Return the id of this choice's ``index``-th tool call.

        Unique in the conversation: it comes of all that was said before. In vLLM's form.
        """
        name = f"{self.choice}.{index}.{self.seed}".encode()
        digest = blake2b(self.conversation.digests[-1] + name, digest_size=8)
        return f"chatcmpl-tool-{digest.hexdigest()}"
