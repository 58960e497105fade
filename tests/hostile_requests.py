"""What a hostile client sends, drawn by hypothesis: any bytes where a request has a place for some.

Targets are of routes as an app has them, so a route that is new is tried without being named here.
Bodies are seeds that are right, with anything else put in somewhere, or no JSON at all.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from agent_runtime.asgi_exchange import AsgiRequest

NESTED = 100_000
"""Levels: what no parser goes down into."""
_PLACE = re.compile(r"\{(\w+)(:path)?\}")


class RouteOf(NamedTuple):
    """One of an app's."""

    method: str
    path: str


def routes_of(app: Starlette) -> list[RouteOf]:
    """Return every route there is, and by methods that it has not."""
    found = []
    for route in app.routes:
        assert isinstance(route, Route), f"{route!r}: tell here how it is asked"
        methods = set(route.methods or ())
        found += [RouteOf(method, route.path) for method in sorted(methods | {"PUT", "BREW"})]
    return found


SEEDS: dict[str, Sequence[dict[str, Any]]] = {
    "/v1/chat/completions": (
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "u"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a":1}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "r"},
            ],
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
            ],
            "max_tokens": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
            "session_id": "s",
            "priority": 1,
            "cache_salt": "x",
            "panjiu": {"expected_tool_s": 3.0, "parent_session_id": "p", "lease_s": 1.0},
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "n",
                    "schema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}},
                               "$defs": {"b": {"type": "string", "pattern": "^a+$"}}},
                },
            },
        },
        {"messages": [{"role": "user", "content": "u"}], "max_tokens": 2, "n": 2, "stop": ["x"],
         "logprobs": True, "top_logprobs": 2, "seed": 1, "prompt_cache_key": "k"},
    ),
    "/v1/completions": (
        {"prompt": "p", "max_tokens": 3, "n": 2, "stream": False, "echo": True},
        {"prompt": [1, 2, 3], "max_tokens": 2, "stream": True, "best_of": 1, "suffix": None},
        {"prompt": ["a", "b"], "max_tokens": 2},
    ),
    "/v1/messages": (
        {
            "model": "m",
            "max_tokens": 3,
            "stream": True,
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "u"}]},
                {"role": "assistant",
                 "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
                {"role": "user",
                 "content": [{"type": "tool_result", "tool_use_id": "c",
                              "content": [{"type": "text", "text": "r"}]}]},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "metadata": {"user_id": '{"session_id":"s"}'},
        },
    ),
    "/v1/responses": (
        {
            "input": [
                {"type": "message", "role": "user", "content": "u"},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "o"},
            ],
            "instructions": "i",
            "store": True,
            "max_output_tokens": 16,
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
            "text": {"format": {"type": "text"}},
            "reasoning": {"effort": "low"},
        },
        {"input": "u", "previous_response_id": "resp_x", "stream": True, "max_output_tokens": 16},
    ),
    "/v1/sessions": (
        {"id": "s", "ttl_s": 9.0, "parent_session_id": "p", "priority": 1, "deadline_s": 5.0},
    ),
    "/v1/sessions/{session_id:path}/fork": ({"id": "f", "ttl_s": 3.0},),
    "/v1/sessions/{session_id:path}/hint": ({"expected_tool_s": 2.0}, {"progress": 0.5}),
    "/tokenize": ({"prompt": "p", "return_token_strs": True},
                  {"messages": [{"role": "user", "content": "u"}]}),
    "/v1/messages/count_tokens": (
        {"model": "m", "messages": [{"role": "user", "content": "u"}], "system": "s"},
    ),
}  # fmt: skip
"""Of routes that take one; any other is sent those of all."""

_texts = (
    st.text(st.characters(), max_size=12)  # with surrogates
    | st.sampled_from(["", "\0", "\r\nx-evil: 1", "\ud800", "..", "../../etc/passwd", "\u202e"])
    | st.builds("{}{}".format, st.sampled_from("a%\u00e9/ {"), st.just("z" * 5000))
)
_numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([-1, 0, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 1e308, -0.0]),
)
_leaves = st.none() | st.booleans() | _numbers | _texts
anything = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)

_DEEP = "\u2620deep"  # stands for nesting, which no encoder gets to
_nested = st.sampled_from(
    [
        ("[" * NESTED, "]" * NESTED),
        ("[" * NESTED, ""),
        ('{"a":' * NESTED, "1" + "}" * NESTED),
        ('[{"type":"tool_result","content":' * 400, "1" + "}]" * 400),
        ("[" * 900, "]" * 900),
        ("[" * 180, "]" * 180),
    ]
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to everything in a JSON value."""
    children: tuple[tuple[Any, Any], ...] = ()
    if isinstance(value, dict):
        children = tuple(value.items())
    elif isinstance(value, list):
        children = tuple(enumerate(value))
    return [place] + [one for key, child in children for one in places(child, (*place, key))]


def with_value(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    """Return a value with another one somewhere in it."""
    if not place:
        return other
    value = copy.copy(value)
    value[place[0]] = with_value(value[place[0]], place[1:], other)
    return value


def _encoded(draw: st.DrawFn, value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if _DEEP in text or json.dumps(_DEEP)[1:-1] in text:
        left, right = draw(_nested)
        for spelt in (json.dumps(_DEEP), f'"{_DEEP}"'):
            text = text.replace(spelt, left + right)
    if text.startswith("{") and draw(st.integers(0, 4)) == 0:  # a name that comes twice
        name = draw(st.sampled_from(sorted(value)) if value else st.just("model"))
        more = json.dumps(name) + ":" + json.dumps(draw(_leaves))
        text = "{" + more + ("," if len(text) > 2 else "") + text[1:]
    return text.encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """A body: right but for a part or two, of any shape, cut off, or bytes that are no JSON."""
    kind = draw(st.sampled_from(["near"] * 6 + ["right", "any", "bytes", "cut"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "any":
        return _encoded(draw, draw(anything))
    seeds = SEEDS.get(path) or [seed for seeds in SEEDS.values() for seed in seeds]
    value: Any = copy.deepcopy(draw(st.sampled_from(list(seeds))))
    if kind == "near":
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.sampled_from(places(value)))
            value = with_value(value, place, draw(anything | st.just(_DEEP)))
    body = _encoded(draw, value)
    return body[: draw(st.integers(0, len(body)))] if kind == "cut" else body


_ODD_SEGMENTS = (
    b"..", b".", b"..%2f..%2fmetrics", b"%2e%2e", b"%2e%2e%2fx", b"%00", b"a%00b", b"%0d%0aX:1",
    b"%ff%fe", b"%", b"%zz", b"..%5c..%5c", b"..;", b"x%3fstream=true", b"x%23y", b"%c0%ae", b"",
    b"a%2ffork", b"fork", b"%20", b"%e2%80%ae", b"a" * 257, b"%41" * 3000, b"z" * 60_000,
)  # fmt: skip
_segments = st.one_of(
    st.sampled_from(_ODD_SEGMENTS),
    st.binary(max_size=20).map(lambda raw: quote(raw).encode()),
    st.text(max_size=12).map(lambda text: quote(text, safe="").encode()),
)
_raw_segments = st.sampled_from([b"../../etc/passwd", b"a/../b", b"//", b"/", b"\xc3\xa9", b"\xff"])


_ODD_VALUES = (b"-1", b"9" * 20, b"00000001" + b"0" * 5000, b"%ff", b"\xff", b"%F0%9F", b"1")


@st.composite
def targets(draw: st.DrawFn, path: str) -> bytes:
    """A route's target with anything for its parameters, and a query now and then."""

    def fill(match: re.Match[str]) -> str:
        values = _segments | _raw_segments if match[2] else _segments
        return draw(values).decode("latin-1")

    target = _PLACE.sub(fill, path).encode("latin-1")
    if draw(st.integers(0, 2)) == 0:
        names = st.sampled_from([b"limit", b"after", b"stream", b"starting_after", b"%00", b""])
        values = st.sampled_from(_ODD_VALUES)
        pairs = draw(st.lists(st.tuples(names, values | _segments), max_size=3))
        target += b"?" + b"&".join(b"=".join(pair) for pair in pairs)
    return target


_HEADER_NAMES = (
    b"x-session-id", b"x-request-id", b"content-type", b"content-length", b"authorization",
    b"x-api-key", b"x-panjiu-expected-tool-s", b"x-panjiu-priority", b"x-panjiu-deadline-s",
    b"x-panjiu-lease-s", b"x-panjiu-progress", b"x-panjiu-parent-session-id", b"x-vllm-priority",
    b"x-claude-code-session-id", b"session-id", b"thread-id", b"x-correlation-id", b"traceparent",
    b"x-parent-session-id", b"host", b"x-whatever", b"anthropic-version", b"accept", b"expect",
    b"transfer-encoding", b"te",
)  # fmt: skip
_ODD_HEADERS = (
    b"", b" ", b"\0", b"a\tb", b"\x7f", b"\xff\xfe", b"%0d%0ax: y", b"%00", b"%", b"1e999",
    b"nan", b"-inf", b"9" * 5000, b"\xd9\xa4", b"text/plain", b"application/json; charset=utf-16",
    b"multipart/form-data", b"Bearer ", b"Bearer \xff", b"gzip", b"[", b"x" * 60_000, b"s", b"..",
)  # fmt: skip
_header_values = st.binary(max_size=20) | st.sampled_from(_ODD_HEADERS)
headers = st.lists(st.tuples(st.sampled_from(_HEADER_NAMES), _header_values), max_size=3)


@st.composite
def requests(draw: st.DrawFn, routes: Sequence[RouteOf]) -> tuple[RouteOf, AsgiRequest]:
    """A request to one of some routes."""
    route = draw(st.sampled_from(list(routes)))
    body = b"" if route.method in {"GET", "HEAD"} else draw(bodies(route.path))
    return route, AsgiRequest(
        route.method, "http", "test", 80, draw(targets(route.path)), draw(headers), body
    )
