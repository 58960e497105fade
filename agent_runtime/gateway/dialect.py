"""The seam between the one core and the APIs that clients speak.

A dialect has two halves. Reading turns a body into a ``NeutralRequest`` and needs no model.
Answering is a form a request: it writes the whole answer, or a stream's events, as they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.neutral_request import NeutralRequest
from agent_runtime.gateway.planned_turn import PlannedTurn
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.occurrence import Occurrence
from agent_runtime.turns import TurnProgress


class DialectName(StrEnum):
    """What a dialect is called in metrics."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What is said of an answer beside its text.

    Attributes:
        request_id: Of the request.
        created: Seconds since 1970.
        model: The name it is served under.
    """

    request_id: str
    created: int
    model: str


class TurnUsage(msgspec.Struct, frozen=True):
    """Tokens of a turn, all choices together.

    Attributes:
        num_prompt: Of its prompts.
        num_output: Generated so far.
        num_cached: Of its prompts, found in the prefix cache.
    """

    num_prompt: int
    num_output: int
    num_cached: int


class AnswerForm(Protocol):
    """Writes one answer in its dialect, whole or as a stream."""

    def whole(self, used: TurnUsage) -> dict[str, Any]:
        """Return the body of a finished answer."""
        ...

    def opening(self) -> bytes:
        """Return the events that come before any token."""
        ...

    def step(self, number: int, step: TurnProgress) -> bytes:
        """Return the events that a step of choice ``number`` makes, none if it shows nothing."""
        ...

    def closing(self, used: TurnUsage) -> bytes:
        """Return the events that end a stream."""
        ...

    def failure(self, error: RequestError | BackendError) -> bytes:
        """Return the events that end a stream that broke.

        It is told so, and the events are not used, where nothing was sent before.
        """
        ...


@runtime_checkable
class Kept(Protocol):
    """A form whose answer is kept, and which somebody beside the client can end."""

    @property
    def cancelled(self) -> Occurrence:
        """Set when the answer is to end."""
        ...

    def cut_short(self) -> dict[str, Any]:
        """Return the body of an answer that was cancelled, or whose client left."""
        ...

    def cut_short_events(self) -> bytes:
        """Return the events that end such a stream."""
        ...

    async def settled(self) -> None:
        """Return once an answer that ended outlives the process, if it is to."""
        ...


R = TypeVar("R")


class Dialect(Protocol[R]):
    """One API; ``R`` is a request as its body has it."""

    @property
    def name(self) -> DialectName:
        """Which."""
        ...

    async def read(self, body: bytes, caller: Caller) -> tuple[R, NeutralRequest]:
        """Read a body.

        Raises:
            RequestError: It can't be served; names the field.
        """
        ...

    def form(self, request: R, turn: PlannedTurn, head: AnswerHead) -> AnswerForm:
        """Return what writes the answer."""
        ...
