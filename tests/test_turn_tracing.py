"""OpenTelemetry spans of turns at the endpoint: whose child each is, and what it tells."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from typing_extensions import override

from agent_runtime.errors import BackendError
from agent_runtime.gateway.turn_tracing import TracedTurns
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.turns import TurnProgress, TurnRequest
from tests.fake_runner import FakeRunner, chat
from tests.lookalike_engine import LookalikeEngine
from tests.served_engines import chat_body, served_engines
from tests.served_rack import MODEL
from tests.speaking_clients import app_of

pytestmark = pytest.mark.anyio
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Traced:
    """An app with a tracer around it."""

    app: Any

    def __post_init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traced = TracedTurns(self.app, provider)

    def client(self) -> httpx2.AsyncClient:
        transport = StreamingAsgiTransport(self.traced)
        return httpx2.AsyncClient(transport=transport, base_url="http://rack", timeout=30)

    def span(self) -> ReadableSpan:
        (span,) = self.exporter.get_finished_spans()
        return span


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize(
    ("path", "body", "dialect", "operation"),
    [
        ("/v1/chat/completions", chat(), "chat", "chat"),
        ("/v1/messages", chat(model=MODEL), "messages", "chat"),
        ("/v1/responses", b'{"input": "hi"}', "responses", "chat"),
        ("/v1/completions", b'{"prompt": "hi", "max_tokens": 4}', "completions", "text_completion"),
    ],
)
async def test_a_turn_s_span_goes_on_with_its_caller_s_trace(
    path: str, body: bytes, dialect: str, operation: str
) -> None:
    traced = Traced(app_of())
    async with traced.client() as http:
        headers = {**PARENT, "X-Session-ID": "agent-1"}
        answer = await http.post(path, content=body, headers=headers)
    assert answer.status_code == 200
    span = traced.span()
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == CALLER
    assert (span.name, span.kind) == (operation, SpanKind.SERVER)
    said = told(span)
    assert said["gen_ai.operation.name"] == operation
    assert said["gen_ai.conversation.id"] == "agent-1"
    assert said["panjiu.dialect"] == dialect
    assert said["panjiu.outcome"] == "answered"
    assert said["panjiu.replica"] == 0
    assert said["http.response.status_code"] == 200
    assert said["gen_ai.usage.input_tokens"] > 0
    assert said["gen_ai.usage.output_tokens"] > 0
    assert [event.name for event in span.events] == ["panjiu.dispatched", "panjiu.first_token"]
    assert span.status.status_code is StatusCode.UNSET


class PausingRunner(FakeRunner):
    """Waits between a turn's first tokens and the others."""

    def __init__(self) -> None:
        super().__init__()
        self.go = anyio.Event()

    @override
    async def _progress(self, request: TurnRequest) -> AsyncGenerator[TurnProgress, None]:
        yield TurnProgress(1, 0, finished=False)
        await self.go.wait()
        yield TurnProgress(request.num_output_tokens - 1, 0, finished=True)


async def test_a_stream_s_span_ends_with_the_stream() -> None:
    runner = PausingRunner()
    traced = Traced(app_of(runner))
    async with (
        traced.client() as http,
        http.stream("POST", "/v1/chat/completions", content=chat(stream=True)) as answer,
    ):
        chunks = answer.aiter_bytes()
        await anext(chunks)
        assert traced.exporter.get_finished_spans() == ()
        runner.go.set()
        async for _ in chunks:
            pass
    assert told(traced.span())["panjiu.outcome"] == "answered"


async def test_a_client_that_leaves_ends_its_span() -> None:
    runner = PausingRunner()
    traced = Traced(app_of(runner))
    async with traced.client() as http:
        async with http.stream("POST", "/v1/chat/completions", content=chat(stream=True)) as answer:
            await anext(answer.aiter_bytes())
        with anyio.fail_after(10):
            while not traced.exporter.get_finished_spans():
                await anyio.sleep(0.001)
    said = told(traced.span())
    assert said["panjiu.outcome"] == said["error.type"] == "aborted"


async def test_refusals_are_no_errors_of_the_server_s() -> None:
    traced = Traced(app_of())
    async with traced.client() as http:
        assert (await http.post("/v1/chat/completions", content=b"{")).status_code == 400
    refused = traced.span()
    assert told(refused)["http.response.status_code"] == 400
    assert "panjiu.outcome" not in told(refused)  # it never was a turn
    assert refused.status.status_code is StatusCode.UNSET


async def test_failures_are() -> None:
    traced = Traced(app_of(FakeRunner(refusal=BackendError("no"))))
    async with traced.client() as http:
        assert (await http.post("/v1/chat/completions", content=chat())).status_code == 502
    failed = traced.span()
    assert told(failed)["panjiu.outcome"] == "failed"
    assert told(failed)["error.type"] == "502"
    assert failed.status.status_code is StatusCode.ERROR


async def test_other_routes_have_none() -> None:
    traced = Traced(app_of())
    async with traced.client() as http:
        for path in ("/v1/models", "/metrics", "/health", "/v1/chat/completions"):
            await http.get(path)
    assert traced.exporter.get_finished_spans() == ()


async def test_engines_get_the_gateway_s_span_as_their_parent() -> None:
    engine = LookalikeEngine()
    async with served_engines([engine]) as served:
        traced = Traced(served.service.app)
        async with traced.client() as http:
            answer = await http.post("/v1/chat/completions", json=chat_body(), headers=PARENT)
            assert answer.status_code == 200
    span = traced.span()
    assert span.context is not None
    _, trace_id, parent, _ = engine.headers[-1]["traceparent"].split("-")
    assert (trace_id, parent) == (TRACE, f"{span.context.span_id:016x}")
    assert engine.headers[-1]["tracestate"] == "vendor=1"
    assert told(span)["panjiu.replica"] == 0


async def test_a_bug_is_recorded_and_goes_on() -> None:
    async def broken(scope: object, receive: object, send: object) -> None:
        raise ZeroDivisionError

    traced = Traced(broken)
    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": []}
    with pytest.raises(ZeroDivisionError):
        await traced.traced(scope, anyio.sleep_forever, broken)  # type: ignore[arg-type]
    assert traced.span().status.status_code is StatusCode.ERROR
    assert [event.name for event in traced.span().events] == ["exception"]
