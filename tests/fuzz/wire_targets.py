"""What else comes over the wire: server-sent events, what they carry, and headers."""

from contextlib import suppress
from urllib.parse import quote

from agent_runtime.errors import AgentRuntimeError
from agent_runtime.event_stream import EventStreamParser
from agent_runtime.gateway.client_hints import client_hints
from agent_runtime.gateway.relay.passed_headers import PassedHeaders
from agent_runtime.gateway.relay.passing_events import WholeEvents
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.session_keys import Caller, session_keys
from agent_runtime.load_test.call_errors import CallFailedError
from agent_runtime.load_test.reply_reader import ReplyReader
from agent_runtime.load_test.turn_record import TurnRecord
from agent_runtime.session_headers import header_of
from agent_runtime.terminal_view.view_messages import read_message
from tests.fuzz.target import Target


def feed_events(data: bytes) -> None:
    """A stream of events, whole and cut somewhere; what is in them, as all readers take it."""
    at_once = EventStreamParser().feed(data)
    cut = len(data) * (data[0] % 7) // 7 if data else 0
    parser, cutter = EventStreamParser(), WholeEvents()
    events = [event for piece in (data[:cut], data[cut:]) for event in parser.feed(piece)]
    assert events == at_once
    passed = cutter.take(data[:cut]) + cutter.take(data[cut:])
    assert data.startswith(passed)
    for event in events:
        with suppress(AgentRuntimeError):
            read_message(event)
    reader = ReplyReader(TurnRecord("s", 0, 0.0, 10, 10))
    with suppress(CallFailedError):
        reader.take(data[:cut], 0.0)
        reader.take(data[cut:], 1.0)
        reader.end()


def feed_headers(data: bytes) -> None:
    """A request's headers, a line each."""
    pairs = (line.partition(b":") for line in data.split(b"\n"))
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, _, value in pairs}
    with suppress(AgentRuntimeError):
        client_hints(headers, None)
    with suppress(AgentRuntimeError):
        for value in PassedHeaders(with_keys=False).of(headers).values():
            assert not set(value) & set("\0\r\n\x7f")
    keys = session_keys(Caller(headers), session_id=None)
    with suppress(AgentRuntimeError):
        session = SessionDirectory(16).find(keys, (b"d",), 0.0)
        spelt = header_of(session.public_id)
        assert spelt.isascii()
        assert spelt.isprintable(), spelt
        again = session_keys(Caller({"x-session-id": spelt}), session_id=None)
        assert again.exact == session.public_id
        assert quote(session.public_id)


_CHUNK = (
    b'data: {"choices":[{"index":0,"delta":{"content":" w","reasoning":"r","tool_calls":[{"index"'
    b':0}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,'
    b'"prompt_tokens_details":{"cached_tokens":1}}}'
)

WIRE_TARGETS = {
    "events": Target(
        feed_events,
        (
            _CHUNK + b"\r\n\r\n: comment\ndata\ndata: [DONE]\n\n",
            b'data: {"v":1,"kind":"frame","t":1.0}\n\ndata: {"error":{"message":"m"}}\n\n',
            b"\r\r\n\n\rdata: a\rdata:b\n\n",
        ),
    ),
    "headers": Target(
        feed_headers,
        (
            b"x-session-id:a%2fb%ff\nx-panjiu-expected-tool-s:3\nx-panjiu-progress:0.5",
            b"x-panjiu-priority:-3\nx-vllm-priority:7\nx-panjiu-lease-s:1e2\nthread-id:t",
            b"session-id:s\nx-correlation-id:c\nx-parent-session-id:p\ntraceparent:00-1-2-01",
        ),
    ),
}
