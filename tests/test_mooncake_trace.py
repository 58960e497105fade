"""The reader of Mooncake's traces: what it makes of one, and what it says of a broken one."""

import gzip
import json
import os
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runtime.errors import ConfigError, TraceError
from agent_runtime.simulation.rack_simulation import SimulationOptions
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.block_id_runs import num_blocks
from agent_runtime.workload.mooncake_trace import (
    FIRST_OUTPUT_ID,
    read_mooncake_trace,
)
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.sources import load_workload
from hw_model.ttft_boundary import TtftBoundary
from tests.engines import deployment

DATA = Path(os.environ.get("PANJIU_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL_TRACE = DATA / "mooncake_conversation.jsonl.gz"


def line(ms: object = 0, isl: object = 1_000, osl: object = 10, ids: object = (0, 1)) -> dict:
    ids = list(ids) if isinstance(ids, tuple) else ids
    return {"timestamp": ms, "input_length": isl, "output_length": osl, "hash_ids": ids}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def read(folder: Path, *lines: object, **kwargs) -> Workload:
    return read_mooncake_trace(write(folder, *lines), **kwargs)


def prompts(trace: Workload) -> list[list[int]]:
    spelled = [
        chain(*(range(first, last + 1) for first, last in script.turns[0].block_id_runs))
        for script in trace.sessions
    ]
    return [[block for block in blocks if block < FIRST_OUTPUT_ID] for blocks in spelled]


def test_a_request_is_a_session_of_one_turn_that_arrives_when_it_did(tmp_path: Path) -> None:
    trace = read(tmp_path, line(1_500, 1_000, 10), line(3_000, 600, 20, (0, 7)))
    assert trace.arrives_s == (1.5, 3.0)
    turns = [script.turns for script in trace.sessions]
    assert [len(each) for each in turns] == [1, 1]
    assert [(turn.isl_tokens, turn.osl_tokens) for (turn,) in turns] == [(1_000, 10), (600, 20)]
    names = [script.session_id for script in trace.sessions]
    assert len(set(names)) == len(names)


def test_an_id_is_so_many_engine_blocks_in_a_row_and_only_full_ones_count(tmp_path: Path) -> None:
    trace = read(tmp_path, line(isl=700, ids=(4, 9)), block_size_tokens=128)
    assert prompts(trace) == [[16, 17, 18, 19, 36]]


def test_consecutive_ids_are_one_run(tmp_path: Path) -> None:
    trace = read(tmp_path, line(isl=2_000, ids=(0, 5, 6, 7)), block_size_tokens=64)
    assert trace.sessions[0].turns[0].block_id_runs == ((0, 7), (40, 62))


def test_outputs_of_equal_prompts_are_blocks_that_nobody_else_has(tmp_path: Path) -> None:
    trace = read(tmp_path, *[line(isl=1_000, osl=200) for _ in range(3)], block_size_tokens=64)
    runs = [script.turns[0].block_id_runs for script in trace.sessions]
    assert [each[:-1] for each in runs] == [((0, 14),)] * 3
    firsts, lasts = zip(*(each[-1] for each in runs), strict=True)
    assert [last - first + 1 for first, last in zip(firsts, lasts, strict=True)] == [3, 3, 3]
    assert all(last < first for last, first in zip(lasts, firsts[1:], strict=False))


def test_equal_prefixes_have_equal_blocks_and_nothing_else_has(tmp_path: Path) -> None:
    one, other = prompts(read(tmp_path, line(ids=(3, 4)), line(ids=(3, 5))))
    assert one[:8] == other[:8]
    assert not set(one[8:]) & set(other[8:])


def test_a_prompt_shorter_than_a_block_has_no_blocks(tmp_path: Path) -> None:
    assert prompts(read(tmp_path, line(isl=15, ids=(3,)), block_size_tokens=16)) == [[]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.integers(1, 5_000), min_size=1, max_size=8),
    st.sampled_from([1, 16, 32, 64, 512]),
    st.randoms(use_true_random=False),
)
def test_every_full_block_of_a_prompt_has_an_id(tmp_path: Path, isls, block_size, random) -> None:
    lines, free = [], 0
    for isl in isls:
        ids = []
        for _ in range(-(-isl // 512)):
            free += random.choice([1, 1, 1, 4])
            ids.append(free)
        lines.append(line(isl=isl, ids=tuple(ids)))
    trace = read(tmp_path, *lines, block_size_tokens=block_size)
    seen: set[int] = set()
    for isl, recorded, script, blocks in zip(
        isls, lines, trace.sessions, prompts(trace), strict=True
    ):
        scale = 512 // block_size
        whole = [block * scale + at for block in recorded["hash_ids"] for at in range(scale)]
        assert blocks == whole[: isl // block_size]
        num_full = (isl + script.turns[0].osl_tokens) // block_size
        assert num_blocks(script.turns[0].block_id_runs) == num_full
        assert not seen & set(blocks)
        seen |= set(blocks)


def test_requests_are_put_in_order_of_arrival_and_ties_stay_in_the_files(tmp_path: Path) -> None:
    lines = [line(5_000, osl=1), line(1_000, osl=2), line(5_000, osl=3), line(0, osl=4)]
    trace = read(tmp_path, *lines)
    assert trace.arrives_s == (0.0, 1.0, 5.0, 5.0)
    assert [s.turns[0].osl_tokens for s in trace.sessions] == [4, 2, 1, 3]


def test_an_empty_output_is_one_token_and_a_note(tmp_path: Path) -> None:
    trace = read(tmp_path, line(osl=0), line())
    assert trace.sessions[0].turns[0].osl_tokens == 1
    (note,) = trace.notes
    assert note.startswith("1 recorded requests had no output")


def test_zipped_traces_blank_lines_and_a_limit_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl.gz"
    text = "\n\n".join(json.dumps(line(number * 1_000)) for number in range(5))
    path.write_bytes(gzip.compress(text.encode()))
    assert len(read_mooncake_trace(path).sessions) == 5
    assert len(read_mooncake_trace(path, limit=3).sessions) == 3


@pytest.mark.parametrize(
    ("broken", "field", "said"),
    [
        (line(ids=(1,)), "hash_ids", "expected 2 ids for 1000 tokens in blocks of 512, found 1"),
        (line(ids=(1, -1)), "hash_ids[1]", "greater than or equal to 0, found -1"),
        (line(ids=(1, "2")), "hash_ids[1]", "valid integer, found '2'"),
        (line(ids="12"), "hash_ids", "valid array"),
        (line(isl=0, ids=()), "input_length", "greater than or equal to 1, found 0"),
        (line(isl=1.5), "input_length", "valid integer, found 1.5"),
        (line(osl=-1), "output_length", "greater than or equal to 0"),
        (line(ms="0"), "timestamp", "valid number, found '0'"),
        (line(ms=-1), "timestamp", "greater than or equal to 0"),
        (line(ms=1e13), "timestamp", "less than or equal to"),
        ({"timestamp": 0}, "input_length", "Field required"),
        (["no object"], None, "object"),
        (line(ids=(1, 2)), "hash_ids[1]", "found 2 after 1 here and after 0 before"),
        (line(ids=(1, 1)), "hash_ids[1]", "found 1 after 1 here and after nothing before"),
    ],
)
def test_a_line_that_is_no_request_is_named_with_its_field(
    tmp_path: Path, broken: object, field: str | None, said: str
) -> None:
    with pytest.raises(TraceError) as caught:
        read(tmp_path, line(isl=1_536, ids=(0, 2, 3)), broken)
    assert (caught.value.line, caught.value.field) == (2, field)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, line())
    path.write_bytes(path.read_bytes() + b'{"timestamp": 1, ')
    with pytest.raises(TraceError, match=r"line 2: Invalid JSON"):
        read_mooncake_trace(path)


def test_a_long_wrong_value_is_cut_short(tmp_path: Path) -> None:
    with pytest.raises(TraceError) as caught:
        read(tmp_path, line(ms="x" * 5_000))
    assert len(str(caught.value)) < 300


def test_files_that_cant_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="can't read it"):
        read_mooncake_trace(tmp_path / "missing.jsonl")
    with pytest.raises(TraceError, match="can't read it"):
        read_mooncake_trace(tmp_path)
    with pytest.raises(TraceError, match="can't read it"):
        read_mooncake_trace("null\0character")
    with pytest.raises(TraceError, match="no requests in it"):
        read(tmp_path)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(json.dumps(line()).encode() * 100)[:-20])
    with pytest.raises(TraceError, match="broken gzip data"):
        read_mooncake_trace(cut)


@pytest.mark.parametrize("block_size", [0, -16, 48, 1_024])
def test_a_block_size_that_doesnt_divide_the_traces_is_refused(
    tmp_path: Path, block_size: int
) -> None:
    with pytest.raises(ConfigError, match="must divide the trace's 512"):
        read(tmp_path, line(), block_size_tokens=block_size)


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limit must be at least 1"):
        read(tmp_path, line(), limit=0)


@pytest.mark.skipif(not REAL_TRACE.exists(), reason=f"no {REAL_TRACE}; set $PANJIU_DATA")
def test_mooncakes_conversation_trace_is_read_whole() -> None:
    trace = read_mooncake_trace(REAL_TRACE)
    turns = [script.turns[0] for script in trace.sessions]
    assert len(turns) == 12_031
    assert sum(turn.isl_tokens for turn in turns) == 144_793_823
    assert trace.arrives_s is not None
    assert trace.arrives_s[-1] > 3_500
    for turn in turns:
        assert num_blocks(turn.block_id_runs) == (turn.isl_tokens + turn.osl_tokens) // 64


def test_the_simulator_takes_a_trace_and_starts_each_request_when_it_came(tmp_path: Path) -> None:
    path = write(tmp_path, line(0, 600, 5, [0, 1]), line(9_000, 700, 5, [0, 2]))
    workload = load_workload(str(path), limit=None, seed=0)
    assert workload.arrives_s == (0.0, 9.0)
    plan = deployment("qwen3-8b", num_replicas=1, block_size_tokens=workload.block_size_tokens)
    options = SimulationOptions(ttft_boundary=TtftBoundary.ENGINE)
    run = simulate(workload, plan, options, stopwatch=lambda: 0.0)
    assert run.summary.sessions.completed == 2
    assert 9.0 < run.summary.simulated_s < 9.2
    assert run.summary.prefix_hit_ratio == pytest.approx(512 / 1300)
