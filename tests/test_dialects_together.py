"""What holds in every dialect: no body breaks it, and the same conversation is the same prompt."""

import json
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agent_runtime.gateway.dialects.completions_wire import CompletionRequest
from agent_runtime.gateway.dialects.messages_wire import MessagesRequest
from agent_runtime.gateway.dialects.responses_wire import ResponsesRequest
from agent_runtime.gateway.session_wire import NewSession, SessionHint
from agent_runtime.gateway.tokenise_route import TokenizeRequest
from tests.fake_runner import FakeRunner, app_over, send
from tests.speaking_clients import SCHEMA, app_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
words = st.sampled_from(
    ["message", "text", "input_text", "function_call", "function_call_output", "reasoning",
     "item_reference", "tool_use", "tool_result", "thinking", "image", "function", "custom",
     "user", "assistant", "system", "auto", "any", "required", "ephemeral", "5m", "json_schema"]
)  # fmt: skip
members = st.sampled_from(
    ["type", "role", "content", "text", "name", "id", "call_id", "arguments", "input", "output",
     "tool_use_id", "cache_control", "ttl", "parameters", "input_schema", "format", "schema"]
)  # fmt: skip
shaped = st.recursive(
    words | st.text(max_size=5) | st.integers(-2, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner, max_size=5),
    max_leaves=12,
)
ROUTES: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "/v1/completions": (CompletionRequest, {"prompt": "x", "max_tokens": 2}),
    "/v1/responses": (ResponsesRequest, {"input": "x", "max_output_tokens": 2}),
    "/v1/messages": (
        MessagesRequest,
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2},
    ),
    "/v1/sessions": (NewSession, {}),
    "/v1/sessions/a/hint": (SessionHint, {}),
    "/tokenize": (TokenizeRequest, {"prompt": "x"}),
}


parts = st.lists(st.dictionaries(members, shaped, max_size=5), max_size=3)
items = st.lists(
    st.fixed_dictionaries(
        {}, optional={"type": words, "role": words, "content": parts | shaped, "output": parts,
                      "call_id": st.text(max_size=3), "name": st.text(max_size=3),
                      "arguments": st.text(max_size=9), "id": st.text(max_size=3)}
    ),
    max_size=4,
)  # fmt: skip
said = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]), "content": items | shaped}
    ),
    max_size=3,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    path = draw(st.sampled_from(sorted(ROUTES)))
    kind, good = ROUTES[path]
    fields = st.sampled_from([field.alias or name for name, field in kind.model_fields.items()])
    changes = draw(st.dictionaries(fields, shaped | json_values, max_size=3))
    for name, values in (("input", items), ("messages", said), ("tools", items)):
        if name in kind.model_fields and draw(st.booleans()):
            changes[name] = draw(values)
    return path, json.dumps({**good, **changes}).encode()


async def post(path: str, body: bytes) -> httpx2.Response:
    return await send(app_over(FakeRunner()), body, path)


@given(bodies())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_whatever_gets_a_500(asked: tuple[str, bytes]) -> None:
    path, body = asked
    answer = anyio.run(post, path, body)
    assert answer.status_code in {200, 201, 400, 404, 409}
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error["message"]
        expected = {"type", "message"}
        if path != "/v1/messages":
            expected |= {"param", "code"}
        assert set(error) == expected


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_conversation_is_the_same_prompt_and_session_in_every_dialect(
    anyio_backend: str,
) -> None:
    runner = FakeRunner()
    app = app_of(runner)
    arguments = json.dumps({"query": "parser"})
    function = {"name": "search", "parameters": SCHEMA}
    chat = {
        "messages": [
            {"role": "system", "content": "You fix code. " * 20},
            {"role": "user", "content": "Fix the parser."},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "call_1", "type": "function",
                     "function": {"name": "search", "arguments": arguments}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "parser.py"},
        ],
        "tools": [{"type": "function", "function": function}],
    }  # fmt: skip
    responses = {
        "instructions": "You fix code. " * 20,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Fix the parser."}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant",
             "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "call_1", "name": "search",
             "arguments": arguments},
            {"type": "function_call_output", "call_id": "call_1", "output": "parser.py"},
        ],
        "tools": [{"type": "function", **function}],
    }  # fmt: skip
    messages = {
        "max_tokens": 1000,
        "system": [{"type": "text", "text": "You fix code. " * 20}],
        "messages": [
            {"role": "user", "content": "Fix the parser."},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "search",
                 "input": {"query": "parser"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "parser.py"}
            ]},
        ],
        "tools": [{"name": "search", "input_schema": SCHEMA}],
    }  # fmt: skip
    asked: dict[str, Any] = {
        "/v1/chat/completions": chat,
        "/v1/responses": responses,
        "/v1/messages": messages,
    }
    for path, body in asked.items():
        fields = {**body, "session_id": "a", "seed": 1}
        assert (await send(app, json.dumps(fields).encode(), path)).status_code == 200
    first = runner.requests[0]
    for request in runner.requests[1:]:
        assert request.num_prompt_tokens == first.num_prompt_tokens
        assert request.block_hashes == first.block_hashes
        assert request.gap.tools == first.gap.tools
