"""The trace reader: what it makes of a recording, and what it says of a broken one."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runtime.errors import ConfigError, TraceError
from agent_runtime.workload.agent_trace import read_agent_trace
from agent_runtime.workload.block_id_runs import clipped, num_blocks
from agent_runtime.workload.session_script import SessionScript, Workload
from agent_runtime.workload.sources import load_workload

B = 64
SHARED = Path(os.environ.get("PANJIU_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL_TRACE = SHARED / "agent_sessions.jsonl.gz"


def call(t: float, isl: int, out: object, runs: list, **fields) -> dict:
    return {"t": t, "type": "n", "in": isl, "out": out, "hash_runs": runs, **fields}


def sub_agent(ended: float, duration_s: float, requests: list, **fields) -> dict:
    return {
        "t": ended,
        "type": "subagent",
        "agent_id": "agent_001",
        "duration_ms": duration_s * 1000,
        "tool_tokens": 0,
        "system_tokens": 0,
        "requests": requests,
        **fields,
    }


def session(name: str = "s", *requests: dict, tools: int = 0, system: int = 0) -> dict:
    return {
        "id": name,
        "block_size": B,
        "tool_tokens": tools,
        "system_tokens": system,
        "requests": list(requests) or [call(0, 2 * B, 10, [[1, 2]])],
    }


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path, *lines: object, **kwargs) -> Workload:
    return read_agent_trace(write(path / "trace.jsonl", *lines), **kwargs)


def test_gaps_are_the_recorded_think_times_whatever_the_original_server_took(
    tmp_path: Path,
) -> None:
    calls = [
        call(0, 2 * B, 10, [[1, 2]], think_time=0.0, api_time=30.0),
        call(37.5, 3 * B, 10, [[1, 3]], think_time=7.5, api_time=1.0),
    ]
    (script,) = read(tmp_path, session("s", *calls)).sessions
    assert [turn.gap_s for turn in script.turns] == [0.0, 7.5]
    (capped,) = read(tmp_path, session("s", *calls), max_gap_s=2.0).sessions
    assert capped.turns[1].gap_s == 2.0


def test_a_missing_think_time_is_made_up_from_the_recorded_clock(tmp_path: Path) -> None:
    calls = [call(0, B, 1, [[1, 1]], api_time=4.0), call(10, B, 1, [[1, 1]])]
    assert read(tmp_path, session("s", *calls)).sessions[0].turns[1].gap_s == 6.0
    del calls[0]["api_time"]
    assert read(tmp_path, session("s", *calls)).sessions[0].turns[1].gap_s == 10.0


def test_parallel_sub_agents_become_children_that_the_next_turn_waits_for(tmp_path: Path) -> None:
    first = call(0, B, 5, [[1, 1]], api_time=10.0)
    one = sub_agent(50, 39, [call(0, B, 5, [[90, 90]])])
    two = sub_agent(60, 50, [call(0, B, 5, [[91, 91]])])
    after = call(63, B, 5, [[1, 1]], think_time=53.0)
    (script,) = read(tmp_path, session("s", first, one, two, after)).sessions
    children = script.turns[0].children
    assert [child.session_id for child in children] == ["s/agent_001", "s/agent_001.2"]
    assert [child.start_delay_s for child in children] == [pytest.approx(1.0), 0.0]
    assert script.turns[1].gap_s == 3.0, "what passed between the last join and the call"
    assert script.num_turns() == 4


def test_nested_sub_agents_are_nested(tmp_path: Path) -> None:
    inner = sub_agent(5, 1, [call(0, B, 5, [[9, 9]])])
    outer = sub_agent(20, 10, [call(0, B, 5, [[8, 8]]), inner])
    (script,) = read(tmp_path, session("s", call(0, B, 5, [[1, 1]]), outer)).sessions
    (child,) = script.turns[0].children
    assert child.turns[0].children[0].session_id == "s/agent_001/agent_001"


def test_a_sub_agent_recorded_before_any_call_follows_the_first(tmp_path: Path) -> None:
    early = sub_agent(5, 1, [call(0, B, 5, [[9, 9]])])
    first, after = call(10, B, 5, [[1, 1]], api_time=30.0), call(45, B, 5, [[1, 1]])
    (script,) = read(tmp_path, session("s", early, first, after)).sessions
    assert [child.start_delay_s for child in script.turns[0].children] == [0.0]
    assert script.turns[1].gap_s == 5.0, "the first call's own time is no gap"


def test_no_two_agents_have_the_same_id(tmp_path: Path) -> None:
    subs = [
        sub_agent(5, 1, [call(0, B, 5, [[9, 9]])], agent_id=name) for name in ("a", "a", "a.2", "a")
    ]
    parent = session("s", call(0, B, 5, [[1, 1]]), *subs)
    (script,) = read(tmp_path, parent).sessions
    ids = [child.session_id for child in script.turns[0].children]
    assert ids == ["s/a", "s/a.2", "s/a.2.2", "s/a.3"]
    with pytest.raises(TraceError, match="line 2: id: 's/a' is the id of a sub-agent in line 1"):
        read(tmp_path, parent, session("s/a"))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[[1, 2], [2, 3]]], r"requests\[0\]\.hash_runs: .* found 2 after 2 here and after 1 "),
        ([[[1, 4]], [[3, 4]]], r"requests\[1\]\.hash_runs: .* 3 after nothing here and after 2 "),
        ([[[1, 4]], [[3, 4], [1, 2]]], r"requests\[1\]\..* 1 after 4 here and after nothing "),
        ([[[1, 1], [9, 9]], [[7, 7], [9, 9]]], r"requests\[1\]\..* 9 after 7 here and after 1 "),
        ([[[5, 5], [2, 3]], [[1, 4]]], r"requests\[0\]\.hash_runs: .* 2 after 5 here and after 1 "),
    ],
)
def test_ids_that_are_not_of_whole_prefixes_are_refused(
    tmp_path: Path, prompts: list, message: str
) -> None:
    calls = [call(t, B * num_blocks(runs), 5, runs) for t, runs in enumerate(prompts)]
    with pytest.raises(TraceError, match=f"line 1: {message}"):
        read(tmp_path, session("s", *calls))
    with pytest.raises(TraceError, match=message[:8]):
        read(tmp_path, session("s", calls[0], sub_agent(9, 1, calls)))


def prefixes(workload: Workload) -> dict[int, tuple[int | None, int]]:
    """Check that equal ids are equal prefixes; return what comes before each id, and where."""
    before: dict[int, tuple[int | None, int]] = {}
    agents = [agent for script in workload.sessions for agent in every_agent(script)]
    for turn in (turn for agent in agents for turn in agent.turns):
        previous = None
        ids = [i for first, last in turn.block_id_runs for i in range(first, last + 1)]
        for position, block in enumerate(ids):
            assert before.setdefault(block, (previous, position)) == (previous, position)
            previous = block
    return before


trunk_sizes = st.tuples(*[st.integers(0, 3).map(lambda blocks: blocks * B)] * 2)


@given(st.lists(st.tuples(trunk_sizes, st.lists(trunk_sizes, max_size=3)), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_equal_ids_are_equal_prefixes_whichever_trunks_agents_share(
    tmp_path: Path, sizes: list
) -> None:
    # Sub-agents fork from their parent's prompt at block 0, 2 or 4 and claim trunks of any size.
    lines = []
    for number, ((tools, system), children) in enumerate(sizes):
        requests = [call(0, 8 * B, 1, [[1, 8]])]
        for index, (child_tools, child_system) in enumerate(children):
            fork, own = 2 * index, 100 * (index + 1)
            runs = [[1, fork], [own, own + 7 - fork]] if fork else [[own, own + 7]]
            forked = [call(0, 8 * B, 1, runs)]
            requests.append(
                sub_agent(5, 1, forked, tool_tokens=child_tools, system_tokens=child_system)
            )
        lines.append(session(f"s{number}", *requests, tools=tools, system=system))
    assert prefixes(read(tmp_path, *lines))


def test_sessions_of_one_harness_share_its_trunk_and_nothing_else(tmp_path: Path) -> None:
    # Tools fill 2 blocks and a half, the system prompt ends in block 4 of 0..5.
    def one(name: str, first: int, system: int) -> dict:
        ids = [[first, first + 5]]
        return session(name, call(0, 6 * B, 1, ids), tools=2 * B + 32, system=system)

    workload = read(
        tmp_path, one("a", 10, 2 * B), one("b", 700, 2 * B), one("c", 40, 3 * B), session("d")
    )
    ids = [
        [i for first, last in s.turns[0].block_id_runs for i in range(first, last + 1)]
        for s in workload.sessions
    ]
    assert ids[0][:4] == ids[1][:4], "tools and system prompt agree"
    assert ids[0][:2] == ids[2][:2]
    assert ids[0][2] != ids[2][2], "only the tools agree"
    assert not set(ids[0][4:]) & set(ids[1][4:])
    assert not set(ids[0]) & set(ids[3])


def test_output_blocks_are_reused_where_the_next_prompt_repeats_them(tmp_path: Path) -> None:
    calls = [call(0, 2 * B, 2 * B, [[1, 2]]), call(9, 5 * B, 10, [[1, 5]])]
    (script,) = read(tmp_path, session("s", *calls)).sessions
    assert num_blocks(script.turns[0].block_id_runs) == 4
    assert script.turns[0].block_id_runs == clipped(script.turns[1].block_id_runs, 0, 4)


@pytest.mark.parametrize(
    "following",
    [call(9, 5 * B, 10, [[1, 1], [7, 10]]), call(9, 3 * B, 10, [[1, 3]])],
    ids=["history was replaced", "the output is not in it"],
)
def test_output_blocks_are_unknown_when_the_next_prompt_does_not_repeat_them(
    tmp_path: Path, following: dict
) -> None:
    (script,) = read(tmp_path, session("s", call(0, 2 * B, 2 * B, [[1, 2]]), following)).sessions
    assert num_blocks(script.turns[0].block_id_runs) == 2


def test_a_call_without_output_is_simulated_with_one_token_and_said_so(tmp_path: Path) -> None:
    workload = read(tmp_path, session("s", call(0, B, 0, [[1, 1]])))
    assert workload.sessions[0].turns[0].osl_tokens == 1
    assert "1 recorded calls had no output" in workload.notes[0]


def test_gzip_and_plain_blank_lines_and_limits(tmp_path: Path) -> None:
    lines = [session("a"), session("b"), session("c")]
    plain = write(tmp_path / "plain.jsonl", *lines)
    zipped = tmp_path / "zipped"
    zipped.write_bytes(gzip.compress(plain.read_bytes().replace(b"\n", b"\n\n")))
    assert read_agent_trace(plain).sessions == read_agent_trace(zipped).sessions
    assert [s.session_id for s in read_agent_trace(plain, limit=2).sessions] == ["a", "b"]


BROKEN: list[tuple[object, str]] = [
    ({**session(), "block_size": "64"}, r"line 2: block_size: .*integer.*found '64'"),
    ({**session(), "block_size": 0}, r"line 2: block_size: .*greater than or equal to 1, found 0"),
    ({**session(), "block_size": 32, "requests": [call(0, 1, 1, [])]}, "expected 64 as before"),
    ({**session("first")}, r"line 2: id: 'first' is the id of line 1 too"),
    ({"id": "x"}, r"line 2: block_size: Field required"),
    ([1], r"line 2: .*object"),
    (session("s", {"type": "x"}), r"line 2: requests\[0\]: .*'n', 's', 'subagent'"),
    (session("s", call(-1, B, 1, [[1, 1]])), r"requests\[0\]\.t: .*found -1"),
    (session("s", call(0, 0, 1, [])), r"requests\[0\]\.in: .*found 0"),
    (session("s", call(0, B, -3, [[1, 1]])), r"requests\[0\]\.out: .*found -3"),
    (session("s", call(0, B, 1.5, [[1, 1]])), r"requests\[0\]\.out: .*integer.*found 1\.5"),
    (session("s", call(0, B, 1, [[2, 1]])), r"requests\[0\]\.hash_runs: .*first <= last"),
    (session("s", call(0, B, 1, [[1, 2]])), r"requests\[0\]\.hash_runs: expected 1 block ids.*2"),
    (session("s", call(0, B, 1, [[1]])), r"requests\[0\]\.hash_runs\[0\]\[1\]: Field required"),
    (session("s", call(0, B, 1, [[1, 1]], think_time=-2)), r"requests\[0\]\.think_time: "),
    ({**session(), "requests": []}, r"requests: expected at least one model call"),
    (
        session("s", call(0, B, 1, [[1, 1]]), sub_agent(9, 3, [])),
        r"requests\[1\]\.requests: expected at least one model call",
    ),
    (
        session("s", call(0, B, 1, [[1, 1]]), sub_agent(9, 3, [call(0, B, "1", [[1, 1]])])),
        r"requests\[1\]\.requests\[0\]\.out: .*found '1'",
    ),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_a_broken_line_is_named_with_its_field(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        read(tmp_path, session("first"), line)
    assert str(tmp_path / "trace.jsonl") in str(caught.value)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sessions in it"),
        (b"\n \n", "no sessions in it"),
        (b"{", "trace: .*JSON"),
        (b'{"id": NaN}', "line 1: "),
        (b"\xff\xfe{}", "line 1: .*"),
        (gzip.compress(b"{}" * 5000)[:-20], "broken gzip data"),
        (b"\x1f\x8bnot gzip at all", "broken gzip data"),
    ],
)
def test_a_file_that_is_no_trace_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message):
        read_agent_trace(path)


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere: can't read it: No such file"):
        read_agent_trace(tmp_path / "nowhere")
    with pytest.raises(TraceError, match="no traces in this folder"):
        read_agent_trace(tmp_path)
    for source in (str(tmp_path / "nowhere"), ""):
        with pytest.raises(TraceError, match=r"no such file, and no generator .*coding-agents"):
            load_workload(source, limit=None, seed=0)


def test_a_name_that_no_file_can_have_is_a_trace_error() -> None:
    with pytest.raises(TraceError, match=r"can't read it: .*null"):
        read_agent_trace("a\0b")
    with pytest.raises(TraceError, match="can't read it: File name too long"):
        load_workload("a" * 5000, limit=None, seed=0)


@pytest.mark.parametrize("source", ["coding-agents", "trace.jsonl"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"limit": -1}, "limit must be at least 1, not -1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"max_gap_s": -1.0}, "max_gap_s must be at least 0, not -1.0"),
        ({"max_gap_s": float("nan")}, "max_gap_s must be at least 0, not nan"),
    ],
)
def test_an_option_out_of_range_is_named(source: str, wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_workload(source, **{"limit": None, "seed": 0, **wrong})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "type", "in", "out", "t", "requests", "hash_runs", "block_size"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_is_a_trace_error_and_nothing_else(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk"
    path.write_bytes(junk)
    with pytest.raises(TraceError):
        read_agent_trace(path)


def every_agent(script: SessionScript) -> list[SessionScript]:
    children = [child for turn in script.turns for child in turn.children]
    return [script, *(agent for child in children for agent in every_agent(child))]


@pytest.mark.skipif(not REAL_TRACE.exists(), reason=f"needs {REAL_TRACE.name} (set PANJIU_DATA)")
def test_the_recorded_sessions_are_read_whole() -> None:
    workload = read_agent_trace(REAL_TRACE)
    agents = [agent for script in workload.sessions for agent in every_agent(script)]
    assert len(workload.sessions) == 239
    assert sum(script.num_turns() for script in workload.sessions) == 17_455
    assert len({agent.session_id for agent in agents}) == len(agents) == 239 + 22
    for turn in (turn for agent in agents for turn in agent.turns):
        assert turn.gap_s >= 0
        blocks = num_blocks(turn.block_id_runs)
        assert turn.isl_tokens // B <= blocks <= (turn.isl_tokens + turn.osl_tokens) // B
