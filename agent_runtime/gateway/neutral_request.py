"""A request in no dialect: what every dialect's body is read to, without any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.client_hints import ClientHints
from agent_runtime.gateway.session_keys import SessionKeys


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, in the form of chat completions.

    Attributes:
        messages: ``role``, ``content``, ``tool_calls``, ``tool_call_id``.
        tools: Definitions as the model sees them, before the messages.
    """

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A text to go on with."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids to go on with."""

    tokens: Sequence[int]


NeutralPrompt: TypeAlias = ChatPrompt | TextPrompt | TokenPrompt


class CallMode(Enum):
    """Whether tools are called."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A function the caller offers.

    Attributes:
        name: Of the function.
        parameters: JSON schema of its arguments, or None.
        place: Where that stands in the request.
    """

    name: str
    parameters: dict[str, Any] | None
    place: str


@dataclass(frozen=True, slots=True)
class ToolTerms:
    """The tools that may be called, and whether to.

    Attributes:
        tools: Those allowed; the one that is named if one is.
        mode: Whether to call.
        parallel: Whether several may be called at once.
    """

    tools: tuple[OfferedTool, ...] = ()
    mode: CallMode = CallMode.NONE
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class JsonTerms:
    """The answer is JSON that satisfies a schema; None for any object."""

    schema: dict[str, Any] | None
    place: str


@dataclass(frozen=True, slots=True)
class ChoiceTerms:
    """The answer is one of these texts."""

    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PatternTerms:
    """The answer matches a regular expression as a whole."""

    pattern: str
    place: str


FormatTerms: TypeAlias = JsonTerms | ChoiceTerms | PatternTerms | None


@dataclass(frozen=True, slots=True)
class LengthTerms:
    """What bounds an answer.

    Attributes:
        max_tokens: At most, or None.
        min_tokens: At least.
        ignore_eos: Generate exactly ``max_tokens`` if that is given.
        stops: Strings that end it.
        stop_shown: Whether the string itself is shown.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    stop_shown: bool = False


@dataclass(frozen=True, slots=True)
class CacheBreakpoint:
    """Up to where the caller wants the prompt cached.

    Attributes:
        message: Index into the conversation's messages; -1 for the tool definitions.
        num_chars: Of that message's content; None for all of it.
        lifetime_s: For how long.
    """

    message: int
    num_chars: int | None
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class NeutralRequest:
    """What a request asks for.

    Attributes:
        model: The name asked for, or None for whatever is served.
        prompts: What to answer; a request may have several, each with ``num_choices`` answers.
        num_choices: Answers a prompt.
        stream: Whether the answer is wanted as it comes.
        length: What bounds it.
        tools: What may be called.
        answer_format: What a text must be; None for anything.
        seed: The caller's, or None.
        keys: Whose turn it is.
        hints: What the caller knows of its session.
        cache_breakpoint: The last one, or None.
    """

    model: str | None
    prompts: tuple[NeutralPrompt, ...]
    num_choices: int = 1
    stream: bool = False
    length: LengthTerms = field(default_factory=LengthTerms)
    tools: ToolTerms = field(default_factory=ToolTerms)
    answer_format: FormatTerms = None
    seed: int | None = None
    keys: SessionKeys = field(default_factory=SessionKeys)
    hints: ClientHints = field(default_factory=ClientHints)
    cache_breakpoint: CacheBreakpoint | None = None


def named_tools(
    tools: Sequence[OfferedTool], names: Sequence[str], param: str
) -> tuple[OfferedTool, ...]:
    """Return the tools of these names.

    Raises:
        InvalidRequestError: One is not offered; names ``param``.
    """
    by_name = {tool.name: tool for tool in tools}
    for name in names:
        if name not in by_name:
            raise wrong(param, f"{name!r} is not among the tools: {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)


def wrong(param: str, problem: str) -> InvalidRequestError:
    """Return the error that a field is at fault."""
    return InvalidRequestError(f"{param}: {problem}", param=param)
