"""OpenTelemetry spans by its conventions for generative AI (``pip install 'panjiu[otel]'``).

``invoke_agent`` for a run, below it ``chat`` for each model call and ``execute_tool`` for each tool
call; a child session's runs are below the tool call that started it. Attributes are those of
OpenTelemetry's semantic conventions for GenAI, and ``panjiu.*`` for what only a session scheduler
knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent_runtime.errors import ConfigError
from agent_runtime.sdk.events import RunResult, ToolReturned, TurnEnded, Usage
from agent_runtime.sdk.spans import Span

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

    from agent_runtime.sdk.conversation import ToolCall
    from agent_runtime.sdk.session_core import SessionCore


class _Open:
    """A span that is under way."""

    __slots__ = ("span",)

    def __init__(self, span: OtelSpan) -> None:
        self.span = span

    def ended(self, how: TurnEnded | ToolReturned | RunResult[object]) -> None:
        """Note how it ended."""
        span = self.span
        match how:
            case TurnEnded(usage, reason, decision):
                _count(span, usage)
                span.set_attribute("gen_ai.response.finish_reasons", [reason])
                if decision is not None:
                    span.set_attribute("panjiu.replica", decision.replica)
                    span.set_attribute("panjiu.waited_s", decision.waited_s)
                    span.set_attribute("panjiu.placement_reason", decision.reason)
            case ToolReturned(failed=failed, content=content):
                if failed:
                    span.set_attribute("error.type", "tool_error")
                    span.add_event("tool_error", {"message": content})
            case RunResult():
                _count(span, how.usage)
                span.set_attribute("panjiu.num_turns", how.num_turns)


class OpenTelemetrySpans:
    """Tells a tracer; pass it as ``RuntimeOptions(spans=OpenTelemetrySpans())``.

    Args:
        tracer: By default of the global provider.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError("spans need a package: pip install 'panjiu[otel]'") from error
        self._trace = trace
        self._tracer = trace.get_tracer("panjiu") if tracer is None else tracer

    @contextmanager
    def run(self, session: SessionCore) -> Iterator[Span]:
        """Open the span of a run, below whatever span is current."""
        agent = session.agent.name
        with self._opened(f"invoke_agent {agent}", "invoke_agent", session) as span:
            yield span

    @contextmanager
    def turn(self, session: SessionCore, run: Span) -> Iterator[Span]:
        """Open the span of a model call."""
        with self._opened(f"chat {session.model}", "chat", session, run) as span:
            span.span.set_attribute("gen_ai.request.model", session.model)
            yield span

    @contextmanager
    def tool(self, session: SessionCore, run: Span, call: ToolCall) -> Iterator[Span]:
        """Open the span of a tool call; in its task it is the current one."""
        name = f"execute_tool {call.name}"
        with self._opened(name, "execute_tool", session, run) as span:
            span.span.set_attribute("gen_ai.tool.name", call.name)
            span.span.set_attribute("gen_ai.tool.call.id", call.call_id)
            with self._trace.use_span(span.span, record_exception=False):
                yield span

    @contextmanager
    def _opened(
        self, name: str, operation: str, session: SessionCore, run: Span | None = None
    ) -> Iterator[_Open]:
        """Open a span that is nobody's current one: a generator may end in another context."""
        context = None
        if isinstance(run, _Open):
            context = self._trace.set_span_in_context(run.span)
        span = self._tracer.start_span(
            name,
            context,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "panjiu",
                "gen_ai.agent.name": session.agent.name,
                "gen_ai.conversation.id": session.session_id,
            },
        )
        try:
            yield _Open(span)
        except Exception as error:
            span.record_exception(error)
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._trace.StatusCode.ERROR, str(error))
            raise
        finally:
            span.end()


def _count(span: OtelSpan, usage: Usage) -> None:
    span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
    span.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
