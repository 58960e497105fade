"""The seam to tracing: a span for each run, model call and tool call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from agent_runtime.sdk.events import RunResult, ToolReturned, TurnEnded

if TYPE_CHECKING:
    from agent_runtime.sdk.conversation import ToolCall
    from agent_runtime.sdk.session_core import SessionCore


class Span(Protocol):
    """What is under way; an exception that leaves its context is recorded by it."""

    def ended(self, how: TurnEnded | ToolReturned | RunResult[object]) -> None:
        """Note how it ended."""
        ...


class Spans(Protocol):
    """Opens spans. Runs and turns are the parents of what is opened while they last."""

    def run(self, session: SessionCore) -> AbstractContextManager[Span]:
        """Open the span of a run."""
        ...

    def turn(self, session: SessionCore, run: Span) -> AbstractContextManager[Span]:
        """Open the span of a model call in a run."""
        ...

    def tool(self, session: SessionCore, run: Span, call: ToolCall) -> AbstractContextManager[Span]:
        """Open the span of a tool call in a run; the tool's own spans are below it."""
        ...


class _NoSpan:
    def ended(self, how: TurnEnded | ToolReturned | RunResult[object]) -> None:
        pass


NO_SPAN = _NoSpan()


class NoSpans:
    """Traces nothing."""

    @contextmanager
    def run(self, session: SessionCore) -> Iterator[Span]:  # noqa: ARG002 - protocol
        """Open nothing."""
        yield NO_SPAN

    @contextmanager
    def turn(self, session: SessionCore, run: Span) -> Iterator[Span]:  # noqa: ARG002 - protocol
        """Open nothing."""
        yield NO_SPAN

    @contextmanager
    def tool(self, session: SessionCore, run: Span, call: ToolCall) -> Iterator[Span]:  # noqa: ARG002
        """Open nothing."""
        yield NO_SPAN
