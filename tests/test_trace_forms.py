"""One session in every form that traces come in is one and the same workload."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runtime.errors import TraceError
from agent_runtime.workload import trace_files, trace_lines
from agent_runtime.workload.agent_trace import read_agent_trace
from agent_runtime.workload.block_id_runs import num_blocks
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.sources import load_workload

B = 64


def recorded(name: str, sizes: list[tuple[int, int]], child_calls: int) -> dict[str, Any]:
    """A session in run-length form: a growing context, and a sub-agent after its first call."""
    requests: list[dict[str, Any]] = []
    t, isl = 0.0, 0
    for index, (append, out) in enumerate(sizes):
        isl += append
        runs = [[1, isl // B]] if isl >= B else []
        timing = {"api_time": 2.0, "think_time": 1.0 if index else 0.0}
        requests.append({"type": "n", "t": t, "in": isl, "out": out, "hash_runs": runs, **timing})
        isl += out
        t += 3.0
        if index == 0 and child_calls:
            inner = [
                {"type": "s", "t": 4.0 * k, "in": B * (k + 1), "out": 7, "api_time": 1.5,
                 "think_time": 2.5 if k else 0.0, "hash_runs": [[5000, 5000 + k]]}
                for k in range(child_calls)
            ]  # fmt: skip
            duration_s = 4.0 * (child_calls - 1) + 1.5
            requests.append(
                {"type": "subagent", "t": 2.25 + duration_s, "duration_ms": duration_s * 1000,
                 "agent_id": "a", "requests": inner}
            )  # fmt: skip
            t = 3.25 + duration_s
    return {"id": name, "block_size": B, "requests": requests}


def original(session: dict[str, Any]) -> dict[str, Any]:
    """The same with the ids spelt out, as kv-cache-tester has them."""
    session = copy.deepcopy(session)

    def spell(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if entry["type"] == "subagent":
                spell(entry["requests"])
            else:
                runs = entry.pop("hash_runs")
                entry["hash_ids"] = [i for first, last in runs for i in range(first, last + 1)]

    spell(session["requests"])
    return session


def weka(session: dict[str, Any]) -> dict[str, Any]:
    """The same with sub-agents timed from the session's beginning."""
    session = original(session)
    for entry in session["requests"]:
        if entry["type"] == "subagent":
            entry["t"] -= entry["duration_ms"] / 1000
            for call in entry["requests"]:
                call["t"] += entry["t"]
    return session


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


SIZES = st.lists(st.tuples(st.integers(1, 5 * B), st.integers(1, 3 * B)), min_size=1, max_size=5)


@given(SIZES, st.integers(0, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_forms_give_the_same_workload(
    tmp_path: Path, sizes: list[tuple[int, int]], child_calls: int
) -> None:
    one, other = recorded("one", sizes, child_calls), recorded("two", sizes[::-1], 0)
    expected = sessions(write(tmp_path / "a.jsonl", f"{json.dumps(one)}\n{json.dumps(other)}\n"))
    for number, form in enumerate((original, weka)):
        forms = [form(one), form(other)]
        folder = tmp_path / f"folder-{number}"
        folder.mkdir(exist_ok=True)
        for name, session in zip(("trace_0001", "trace_0002"), forms, strict=True):
            write(folder / f"{name}.json", json.dumps(session, indent=2))
        write(folder / "README.md", "no trace")
        lines = "".join(json.dumps(session) + "\n" for session in forms)
        assert sessions(folder) == expected
        assert sessions(write(tmp_path / "b.jsonl", lines)) == expected
        assert sessions(write(tmp_path / "c.json", json.dumps(forms, indent=1))) == expected


def sessions(path: Path) -> object:
    workload: Workload = read_agent_trace(path)
    return workload.sessions


def test_ids_of_the_unfilled_block_are_left_out_and_missing_ones_are_nobody_s(
    tmp_path: Path,
) -> None:
    session = original(recorded("one", [(3 * B + 5, 1), (2 * B, 1)], 0))
    session["requests"][0]["hash_ids"].append(4)  # of the block that is not full
    del session["requests"][1]["hash_ids"][3:]
    (script,) = read_agent_trace(write(tmp_path / "t.json", json.dumps(session))).sessions
    first, second = script.turns
    assert num_blocks(first.block_id_runs) == 3
    assert num_blocks(second.block_id_runs) == 5
    assert first.block_id_runs[0][0] == second.block_id_runs[0][0]
    assert len(second.block_id_runs) == 2


def test_a_sub_agent_nobody_waited_for_has_no_duration(tmp_path: Path) -> None:
    session = weka(recorded("one", [(B, 1), (B, 1)], 2))
    session["requests"][1]["duration_ms"] = None
    (script,) = read_agent_trace(write(tmp_path / "t.json", json.dumps(session))).sessions
    assert script.turns[0].children[0].num_turns() == 2
    assert script.turns[1].gap_s == pytest.approx(1.0)


def test_weka_times_that_were_rounded_to_seconds_are_told_from_times_of_the_sub_agent_s_own(
    tmp_path: Path,
) -> None:
    session = weka(recorded("one", [(B, 1), (B, 1)], 2))
    marker = session["requests"][1]
    marker["t"], marker["duration_ms"] = 8.7, 5_500
    for call, t in zip(marker["requests"], (8.0, 12.0), strict=True):
        call["t"] = t
    session["requests"][2]["t"] = 16.0
    (script,) = read_agent_trace(write(tmp_path / "t.json", json.dumps(session))).sessions
    assert script.turns[0].children[0].start_delay_s == pytest.approx(8.7 - 2.0)
    assert script.turns[1].gap_s == pytest.approx(16.0 - 8.7 - 5.5)


def test_a_sub_agent_that_ran_on_in_the_background_is_told_of(tmp_path: Path) -> None:
    session = weka(recorded("one", [(B, 1), (B, 1)], 2))
    assert read_agent_trace(write(tmp_path / "t.json", json.dumps(session))).notes == ()
    session["requests"][1]["duration_ms"] = 60_000
    (note,) = read_agent_trace(write(tmp_path / "t.json", json.dumps(session))).notes
    assert "1 recorded sub-agents ran on in the background" in note


def test_ids_shared_between_files_are_refused_as_the_reader_takes_each_file_s_as_its_own(
    tmp_path: Path,
) -> None:
    session = {**original(recorded("one", [(B, 1)], 0)), "hash_id_scope": "global"}
    with pytest.raises(TraceError, match=r"hash_id_scope: .*'local', found 'global'"):
        read_agent_trace(write(tmp_path / "t.json", json.dumps(session)))


@pytest.mark.parametrize("indent", [None, 1])
def test_a_session_told_twice_in_a_folder_is_named(tmp_path: Path, indent: int | None) -> None:
    text = json.dumps(original(recorded("one", [(B, 1)], 0)), indent=indent)
    for name in ("a.json", "b.json"):
        write(tmp_path / name, text)
    with pytest.raises(TraceError, match=r"b\.json.*: id: 'one' is the id of .*a\.json.* too"):
        read_agent_trace(tmp_path)


def test_more_json_than_memory_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (trace_lines, trace_files):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 1 << 20)
    one_line = tmp_path / "bomb.jsonl.gz"
    one_line.write_bytes(gzip.compress(b'{"id": "' + b"a" * (4 << 20)))
    with pytest.raises(TraceError, match="line 1: expected at most 1 MiB a line"):
        load_workload(str(one_line), limit=None, seed=0)
    many = tmp_path / "bomb.json.gz"
    many.write_bytes(gzip.compress(b"{\n" + b'"id": "a",\n' * (1 << 18)))
    with pytest.raises(TraceError, match="expected at most 1 MiB in one JSON value"):
        load_workload(str(many), limit=None, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hash_ids": [1, 2, 3, 4]}, r"requests\[0\].hash_ids: expected at most 2 block ids"),
        ({"hash_ids": None}, r"requests\[0\]: expected hash_runs or hash_ids, found neither"),
        ({"hash_runs": [[1, 2]]}, r"requests\[0\]: expected .* found both"),
        ({"hash_ids": [1, "x"]}, r"requests\[0\].hash_ids\[1\]: .*integer"),
        ({"hash_ids": [1, -1]}, r"requests\[0\].hash_ids\[1\]"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    session = original(recorded("one", [(2 * B, 1)], 0))
    session["requests"][0].update(change)
    with pytest.raises(TraceError, match=message):
        read_agent_trace(write(tmp_path / "t.json", json.dumps(session, indent=1)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("deep.json", "[" * 100_000, "not JSON"),
        ("deep.jsonl", '{"id":' * 100_000, "JSON"),
        ("list.json", "[1, 2]", "should be a valid dictionary|object"),
        ("text.json", "no trace at all", "JSON"),
        ("empty.json", "", "no sessions in it"),
        (
            "other.jsonl",
            '{"prompt": "x", "n": 3}',
            r"line 1: .*no known form.*Mooncake.*'prompt', 'n'",
        ),
        ("bare.jsonl", "{}", "line 1: .*no known form.*keys none"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        load_workload(str(write(tmp_path / name, content)), limit=None, seed=0)


def test_a_folder_of_zipped_files_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        data = json.dumps(original(recorded(name, [(B, 1)], 0))).encode()
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(data))
    workload = load_workload(str(tmp_path), limit=None, seed=0)
    assert [script.session_id for script in workload.sessions] == ["a", "b"]
