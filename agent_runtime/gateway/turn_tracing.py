"""OpenTelemetry spans of the requests that run turns (``pip install 'panjiu[otel]'``).

A span goes on with its caller's trace, and engines get it as theirs: ``traceparent`` comes in and
goes out. Only OpenTelemetry's API is used here; where spans go is set up by whoever starts the
process, as ``opentelemetry-instrument`` does. Attributes are those of its conventions for
generative AI, and ``panjiu.*`` for what only a session scheduler knows.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.errors import ConfigError
from agent_runtime.gateway.dialect import DialectName, TurnUsage
from agent_runtime.gateway.turn_telemetry import TURN_SPAN, Outcome
from agent_runtime.turns import TurnPlacement

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

DIALECTS = MappingProxyType(
    {
        "/v1/chat/completions": DialectName.CHAT,
        "/v1/completions": DialectName.COMPLETIONS,
        "/v1/messages": DialectName.MESSAGES,
        "/v1/responses": DialectName.RESPONSES,
    }
)
"""By path; other routes run no turns."""
SERVER_ERROR = 500


class TracedTurns:
    """ASGI middleware: a span around every request that runs turns, until its answer has ended.

    Args:
        app: What is traced.
        provider: Of tracers; by default the global one.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import propagate, trace  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError("--otel needs a package: pip install 'panjiu[otel]'") from error
        self._app, self._trace, self._propagate = app, trace, propagate
        self._tracer = trace.get_tracer("panjiu", tracer_provider=provider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        dialect = DIALECTS.get(scope["path"]) if scope["type"] == "http" else None
        if dialect is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        span = self._opened(scope, dialect)

        async def noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note_status(span, message["status"])
            await send(message)

        try:
            await self._app(self._inside(scope, span), receive, noting_status)
        except Exception as error:
            span.record_exception(error)
            span.set_status(self._trace.StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()

    def _opened(self, scope: Scope, dialect: DialectName) -> Span:
        carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        operation = "text_completion" if dialect is DialectName.COMPLETIONS else "chat"
        return self._tracer.start_span(
            operation,
            self._propagate.extract(carrier),
            self._trace.SpanKind.SERVER,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "panjiu",
                "http.request.method": "POST",
                "http.route": scope["path"],
                "url.path": scope["path"],
                "panjiu.dialect": dialect.value,
            },
        )

    def _inside(self, scope: Scope, span: Span) -> Scope:
        """Return the request as the app sees it: with the span, and as that span's child."""
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier, self._trace.set_span_in_context(span))
        own = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in carrier.items()]
        replaced = {name for name, _ in own}
        headers = [one for one in scope["headers"] if one[0] not in replaced]
        state = {**(scope.get("state") or {}), TURN_SPAN: _OpenTurnSpan(span)}
        return {**scope, "headers": [*headers, *own], "state": state}

    def _note_status(self, span: Span, status: int) -> None:
        span.set_attribute("http.response.status_code", status)
        if status >= SERVER_ERROR:
            span.set_attribute("error.type", str(status))
            span.set_status(self._trace.StatusCode.ERROR)


class _OpenTurnSpan:
    """The ``TurnSpan`` of a request."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def began(self, session_id: str) -> None:
        """Note whose turn it is."""
        self._span.set_attribute("gen_ai.conversation.id", session_id)

    def placed(self, placement: TurnPlacement) -> None:
        """Note where it runs; again, if it is tried again."""
        told = {
            "panjiu.replica": placement.replica_id,
            "panjiu.waited_s": placement.waited_s,
            "panjiu.placement_reason": placement.reason.value,
            "panjiu.expected_cached_tokens": placement.num_expected_cached_tokens,
        }
        self._span.set_attributes(told)
        self._span.add_event("panjiu.dispatched", told)

    def first_token(self, ttft_s: float) -> None:
        """Note how long its first token took."""
        self._span.set_attribute("panjiu.ttft_s", ttft_s)
        self._span.add_event("panjiu.first_token")

    def ended(self, outcome: Outcome, used: TurnUsage | None) -> None:
        """Note how it ended."""
        self._span.set_attribute("panjiu.outcome", outcome.value)
        if outcome in {Outcome.FAILED, Outcome.ABORTED}:
            self._span.set_attribute("error.type", outcome.value)
        if used is not None:
            self._span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": used.num_prompt,
                    "gen_ai.usage.output_tokens": used.num_output,
                    "gen_ai.usage.cache_read.input_tokens": used.num_cached,
                }
            )
