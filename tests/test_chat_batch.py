"""OpenAI batch files as workloads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runtime.errors import TraceError
from agent_runtime.prompts.chat_prompt import PromptMemory, render_chat
from agent_runtime.prompts.tokeniser import tokenise
from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.block_id_runs import common_prefix, num_blocks
from agent_runtime.workload.chat_batch import read_chat_batch
from agent_runtime.workload.sources import load_workload
from tests.engines import deployment

SYSTEM = {"role": "system", "content": "rules " * 700}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def line(name: str, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": list(messages), **fields}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "batch.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return path


def test_prompts_are_counted_as_the_endpoint_counts_them_and_share_what_is_equal(
    tmp_path: Path,
) -> None:
    messages = [[SYSTEM, user(f"question {number} " + "x " * 90)] for number in range(3)]
    lines = [line(f"r{number}", *asked, max_tokens=5) for number, asked in enumerate(messages)]
    workload = load_workload(str(write(tmp_path, *lines)), limit=None, seed=1)
    assert workload.arrives_s == (0.0, 0.0, 0.0)
    turns = [script.turns[0] for script in workload.sessions]
    for asked, turn in zip(messages, turns, strict=True):
        assert turn.isl_tokens == PromptMemory(64).open_prompt(render_chat(asked, ()))
        assert 1 <= turn.osl_tokens <= 5
        assert num_blocks(turn.block_id_runs) == turn.isl_tokens // 64
    assert common_prefix(turns[0].block_id_runs, turns[1].block_id_runs) == 704 // 64, (
        "rules, their role and end, the user's role"
    )


def test_a_request_that_goes_on_with_another_is_its_session_s_next_turn(tmp_path: Path) -> None:
    reply = {"role": "assistant", "content": "well " * 100}
    first = [SYSTEM, user("one")]
    second = [*first, reply, user("two")]
    fork = [*first, {"role": "assistant", "content": "other"}, user("two")]
    path = write(
        tmp_path,
        line("a", *first),
        line("b", user("somebody else")),
        line("c", *second),
        line("d", *fork),
        line("e", *second, reply, user("three"), max_tokens=7, ignore_eos=True),
    )
    sessions = read_chat_batch(path).sessions
    assert [script.session_id for script in sessions] == ["a", "b", "d"]
    long = sessions[0]
    assert long.num_turns() == 3
    quoted = len(tokenise("well " * 100))
    assert [turn.osl_tokens for turn in long.turns] == [quoted, quoted, 7]
    for before, after in zip(long.turns, long.turns[1:], strict=False):
        assert after.isl_tokens > before.isl_tokens + before.osl_tokens
        context = (before.isl_tokens + before.osl_tokens) // 64
        assert common_prefix(before.block_id_runs, after.block_id_runs) == context


def test_equal_requests_are_gone_on_with_one_after_the_other(tmp_path: Path) -> None:
    first = [user("one")]
    replies = [{"role": "assistant", "content": word * 5} for word in ("yes ", "no ")]
    path = write(
        tmp_path,
        line("a", *first),
        line("b", *first),
        line("c", *first, replies[0], user("two")),
        line("d", *first, replies[1], user("two")),
    )
    sessions = read_chat_batch(path).sessions
    assert [(script.session_id, script.num_turns()) for script in sessions] == [("a", 2), ("b", 2)]
    (only,) = load_workload(str(path), limit=1, seed=0).sessions
    assert only == sessions[0], "a limit counts sessions, and leaves them whole"


def test_what_clients_send_as_null_is_as_if_not_said(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("tools", "max_tokens", "max_completion_tokens", "ignore_eos", "n"))
    plain = read_chat_batch(write(tmp_path, line("a", user("x"))))
    assert read_chat_batch(write(tmp_path, line("a", user("x"), **nulls))) == plain


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "tools", "tool_calls", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(json_values, json_values, st.sampled_from([None, "user", "assistant"]))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_is_read_or_refused_and_never_breaks(
    tmp_path: Path, junk: object, tools: object, role: str | None
) -> None:
    message = junk if role is None else {"role": role, "content": junk}
    path = write(tmp_path, line("a", message, tools=tools))  # type: ignore[arg-type]
    try:
        workload = read_chat_batch(path)
    except TraceError:
        return
    assert workload.sessions[0].num_turns() == 1


def test_the_same_seed_draws_the_same_lengths_and_a_batch_runs_on_the_rack(tmp_path: Path) -> None:
    path = write(tmp_path, *(line(f"r{number}", SYSTEM, user(str(number))) for number in range(20)))
    one, two, other = (read_chat_batch(path, seed=seed) for seed in (1, 1, 2))
    assert one.sessions == two.sessions != other.sessions
    assert "20 requests in 20 sessions" in one.notes[0]
    simulation = RackSimulation(one, deployment(num_replicas=2), SimulationOptions())
    simulation.run()
    assert simulation.log.num_turns == 20
    assert sum(engine.stats().num_cached_tokens for engine in simulation.engines) > 0


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"custom_id": ""}, "line 2: custom_id"),
        ({"custom_id": "ok"}, "line 2: custom_id: 'ok' is the id of line 1 too"),
        ({"url": "/v1/embeddings"}, "line 2: url: .*chat/completions"),
        ({"body": {"messages": []}}, r"line 2: body.messages"),
        ({"body": {"messages": [1]}}, r"line 2: body.messages\[0\]"),
        (
            {"body": {"messages": [{"content": "x"}]}},
            r"line 2: body.messages\[0\].role: .*required",
        ),
        ({"body": {"messages": [{"role": 7}]}}, r"line 2: body.messages\[0\].role: .*found 7"),
        ({"body": {"messages": [user("x")], "max_tokens": 0}}, "line 2: body.max_tokens"),
        ({"body": {"messages": [user("x")], "max_tokens": 10**30}}, "line 2: body.max_tokens"),
        ({"body": {"messages": [user("x")], "n": 2}}, "line 2: body.n: .*found 2"),
        ({"method": "GET"}, "line 2: method: .*'POST'"),
        (
            {"body": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
            r"line 2: body.messages\[0\].content\[0\]: .*image_url",
        ),
    ],
)
def test_a_broken_line_is_named_with_its_field(
    tmp_path: Path, broken: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, line("ok", user("hello")), {**line("x", user("hello")), **broken})
    with pytest.raises(TraceError, match=message):
        load_workload(str(path), limit=None, seed=0)
