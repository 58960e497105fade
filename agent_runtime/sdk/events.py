"""What happens while an agent works, as frozen values, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeAlias, TypeVar

from agent_runtime.session_headers import DECISION_HEADER

Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, of one model call or of many.

    Attributes:
        prompt_tokens: Of all prompts.
        cached_tokens: Of these, what the server found in its KV cache.
        output_tokens: Generated.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Of prompts and outputs."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Return both together."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
        )

    @classmethod
    def of(cls, told: object) -> Usage:
        """Read the ``usage`` of an answer; what it doesn't say is 0."""
        if not isinstance(told, dict):
            return cls()
        details = told.get("prompt_tokens_details") or {}
        return cls(
            int(told.get("prompt_tokens") or 0),
            int(details.get("cached_tokens") or 0),
            int(told.get("completion_tokens") or 0),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What the scheduler decided about a model call; servers other than Panjiu tell nothing.

    Attributes:
        replica: Where it runs.
        waited_s: For how long it was held.
        expected_cached_tokens: Of its prompt, found there in the KV cache.
        reason: ``home``, ``moved`` or ``new``.
    """

    replica: int
    waited_s: float
    expected_cached_tokens: int
    reason: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self | None:
        """Read the headers of an answer; None where there is no decision in them."""
        told = headers.get(DECISION_HEADER)
        if told is None:
            return None
        fields = dict(part.strip().partition("=")[::2] for part in told.split(";"))
        try:
            return cls(
                int(fields["replica"]),
                int(fields["waited_ms"]) / 1000,
                int(fields["expected_cached_tokens"]),
                fields["reason"],
            )
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The agent was told something.

    Attributes:
        text: What.
    """

    text: str


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """A model call begins.

    Attributes:
        number: Of it in the run, from 1.
    """

    number: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The model said something more."""

    text: str


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A model call is over.

    Attributes:
        finish_reason: As the server has it, e.g. ``stop``, ``tool_calls``, ``length``.
        decision: Of the scheduler, where the server tells it.
    """

    usage: Usage
    finish_reason: str
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model wants a tool; it begins now.

    Attributes:
        arguments: JSON, as the model wrote it.
    """

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A tool is done.

    Attributes:
        content: What the model is told.
        failed: Whether that is an error.
    """

    call_id: str
    name: str
    content: str
    failed: bool


@dataclass(frozen=True, slots=True)
class RunResult(Generic[Output]):
    """An answer.

    Attributes:
        output: The text, or what it was parsed to.
        text: As the model said it.
        usage: Of all model calls of the run.
        num_turns: How many there were.
        messages: The whole conversation, as it goes on the wire.
        session_id: Whose.
    """

    output: Output
    text: str
    usage: Usage
    num_turns: int
    messages: Sequence[dict[str, Any]]
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last event of a run."""

    result: RunResult[Any]


Event: TypeAlias = (
    RunStarted | TurnStarted | TextDelta | TurnEnded | ToolCalled | ToolReturned | RunEnded
)
