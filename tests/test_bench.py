"""``panjiu bench``: what it shows, writes, keeps and returns."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest
from rich.text import Text

from agent_runtime.cli.main import main
from agent_runtime.comparison.cell import MEASURES, Cell, CellResult
from agent_runtime.comparison.statistics import verdict
from agent_runtime.comparison.sweep import FailedCell
from agent_runtime.report.bench_json import BenchJson, CapacityJson, Inputs, SummaryJson, bench_json
from agent_runtime.report.bench_measures import Column, best, rows
from agent_runtime.report.bench_table import bench_table
from agent_runtime.report.bench_words import cautions
from scheduler.policies import POLICIES, PolicyEntry
from scheduler.policy import Policy
from tests.comparisons import broken, outcome, result


def test_who_completed_nothing_is_last_and_best_at_nothing() -> None:
    nothing = result("mori", 0, 0.0).model_copy(update={"jct_mean_s": None})
    made = outcome([nothing, result("panjiu", 0, 5.0), result("clairvoyant", 0, 1.0)])
    found = rows(made, 1.0, (Column("jct_mean_s", "JCT", str),))
    assert [row.policy for row in found] == ["clairvoyant", "panjiu", "mori"]
    assert best(found, 0, 1) == 5.0, "a bound is not the best"
    assert verdict(made.results, "panjiu", 1.0, "jct_mean_s") is None


def test_the_table_has_the_best_in_bold_and_bounds_marked() -> None:
    results = [result(name, 0, at_s) for name, at_s in (("panjiu", 60.0), ("mori", 90.0))]
    table = bench_table(outcome([*results, result("clairvoyant", 0, 30.0)]), 1.0)
    names, jcts = (list(table.columns[index].cells) for index in (0, 1))
    assert names == ["clairvoyant (bound)", "panjiu", "mori"]
    assert [(str(cell), cell.style) for cell in jcts if isinstance(cell, Text)] == [
        ("30 s", ""), ("1 m", "bold"), ("1.5 m", ""),
    ]  # fmt: skip


def test_json_holds_every_run_means_with_intervals_and_ratios_to_the_baseline() -> None:
    results = [
        result(name, seed, at_s * (1 + seed))
        for name, at_s in (("panjiu", 60.0), ("mori", 90.0))
        for seed in (0, 1)
    ]
    failed = FailedCell(Cell("plas", 1.0, 0), "ZeroDivisionError: by design")
    made = bench_json(dataclasses.replace(outcome(results), failed=[failed]))
    assert BenchJson.model_validate_json(made.model_dump_json()) == made
    assert [run.jct_mean_s for run in made.runs] == [60.0, 120.0, 90.0, 180.0]
    mori = next(entry for entry in made.summary if entry.policy == "mori")
    assert mori.seeds == [0, 1]
    assert mori.measures["jct_mean_s"].mean == 135.0
    assert mori.to_baseline["jct_mean_s"].mean == pytest.approx(1.5)
    assert made.verdicts[0].rival == "mori"
    assert made.verdicts[0].ratio.mean == pytest.approx(1 / 1.5)
    assert made.failed[0].error == "ZeroDivisionError: by design"


def test_every_field_of_the_json_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "bench.md").read_text()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    documented = set(re.findall(r"`([a-z0-9_]+)`", prose))
    for model in (BenchJson, Inputs, CellResult, CapacityJson, SummaryJson):
        assert set(model.model_fields) <= documented, model.__name__


def test_cautions_name_short_runs_single_seeds_and_what_is_missing() -> None:
    made = outcome([result("panjiu", 0, 1.0, load=40.0)])
    text = " ".join(cautions(dataclasses.replace(made, cells=[*made.cells, Cell("mori", 40.0, 0)])))
    assert "At load 40 a run is short" in text
    assert "1 of 2 runs have no result" in text
    assert "One seed" in text


SMALL = [
    "bench", "--sessions", "coding-agents", "--limit", "6", "--model", "qwen3-8b",
    "--replicas", "2", "--max-gap-s", "1", "--jobs", "1",
]  # fmt: skip


def test_the_command_compares_and_writes_what_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = {name: tmp_path / f"out.{name}" for name in ("json", "csv", "html")}
    outputs = [part for name, path in targets.items() for part in (f"--{name}", str(path))]
    two = ["--policies", "panjiu,round_robin", "--load", "0.5,1", "--seeds", "2"]
    assert main([*SMALL, *two, *outputs]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "load 0.5: best rival on mean JCT: round_robin; panjiu 0." in shown
    made = BenchJson.model_validate_json(targets["json"].read_text())
    assert made.complete
    assert len(made.runs) == 8
    assert (made.inputs.num_sessions, made.inputs.model) == (6, "qwen3-8b")
    with targets["csv"].open() as file:
        lines = list(csv.DictReader(file))
    assert [line["policy"] for line in lines] == [run.policy for run in made.runs]
    assert set(MEASURES) < set(lines[0])
    page = targets["html"].read_text()
    assert page.count("<svg") == 2 + 2, "two measures by load, and a scatter a load"
    assert "160 virtual nodes" not in page, "only policies that ran are told of"
    assert "HBM bandwidth" in page


def test_a_comparison_goes_on_where_it_was_stopped_and_gives_the_same_as_one_that_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = ["--policies", "panjiu,round_robin", "--load", "0.5,1", "--seeds", "1"]
    kept, whole, resumed = tmp_path / "kept", tmp_path / "whole.json", tmp_path / "resumed.json"
    assert main([*SMALL, *two, "--json", str(whole)]) == 0
    assert main([*SMALL, *two, "--out", str(kept)]) == 0
    file = kept / "cells.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    file.write_text("".join(lines[:2]) + "[1]\n" + lines[2][:40])
    capsys.readouterr()
    assert main([*SMALL, *two, "--out", str(kept), "--json", str(resumed)]) == 0
    assert "2 of 4 runs were done before and are reused" in capsys.readouterr().err
    assert resumed.read_text() == whole.read_text()
    assert main([*SMALL, *two, "--out", str(kept), "--json", str(resumed)]) == 0
    assert "4 of 4 runs were done before" in capsys.readouterr().err
    assert resumed.read_text() == whole.read_text()
    assert main([*SMALL, *two, "--out", str(kept), "--host-kv-gb", "8"]) == 0
    assert "done before" not in capsys.readouterr().err, "other inputs are another comparison"


def test_a_run_that_fails_is_said_so_and_the_others_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(POLICIES, "broken", PolicyEntry(broken, "a test"))
    one = [*SMALL, "--load", "0.5", "--seeds", "1", "--json", "-"]
    assert main([*one, "--policies", "broken,panjiu"]) == 1
    captured = capsys.readouterr()
    assert "failed: broken at load 0.5, seed 0: ZeroDivisionError: by design" in captured.err
    made = BenchJson.model_validate_json(captured.out)
    assert ([run.policy for run in made.runs], made.complete) == (["panjiu"], False)
    assert main([*one, "--policies", "broken"]) == 1
    assert BenchJson.model_validate_json(capsys.readouterr().out).runs == []


def test_ctrl_c_shows_and_keeps_what_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> Policy:
        raise KeyboardInterrupt

    monkeypatch.setitem(POLICIES, "interrupted", PolicyEntry(interrupted, "a test"))
    command = [*SMALL, "--policies", "panjiu,round_robin,interrupted", "--load", "0.5"]
    page = tmp_path / "page.html"
    assert main([*command, "--out", str(tmp_path / "kept"), "--html", str(page)]) == 130
    captured = capsys.readouterr()
    assert "best rival on mean JCT: round_robin" in captured.out
    assert "interrupted; 2 of 9 runs were done; the same command goes on" in captured.err
    assert len((tmp_path / "kept" / "cells.jsonl").read_text().splitlines()) == 2
    assert "7 of 9 runs have no result" in page.read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--policies", "magic"], "unknown policy 'magic'; known: clairvoyant, "),
        (["--policies", "mori", "--baseline", "magic"], "unknown policy 'magic'; known: "),
        (["--policies", "mori", "--baseline", "plas"], "--baseline plas: it is not among"),
        (["--policies", ","], "--policies: expected names of policies"),
        (["--load", "0"], "--load: expected a number > 0, got '0'"),
        (["--load", "0.5,x"], "--load: expected a number > 0, got 'x'"),
        (["--seeds", "0"], "--seeds: expected a whole number >= 1"),
        (["--limit", "1"], "1 session a run is no load"),
        (["--json", "/nowhere/x.json"], "--json /nowhere/x.json: not a file"),
        (["--replicas", "500"], "500 replicas x TP4 need 2000 chips"),
    ],
)
def test_a_wrong_option_is_named(
    args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["bench", *args])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert says in capsys.readouterr().err


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    shown = capsys.readouterr().out
    assert "panjiu bench --replicas 4" in shown
    assert "--policy " not in shown, "there is no single policy here"


def test_explain_tells_a_turn_s_options_and_how_it_came_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.jsonl"
    simulate = [
        "simulate", "--limit", "8", "--model", "qwen3-8b", "--replicas", "2", "--band", "base",
    ]  # fmt: skip
    assert main([*simulate, "--event-log", str(log)]) == 0
    first = json.loads(log.read_text().splitlines()[0])
    capsys.readouterr()
    assert main(["explain", str(log)]) == 0
    assert "predicted" in capsys.readouterr().out
    assert main(["explain", str(log), "--turn", first["turn"]]) == 0
    told = capsys.readouterr().out
    assert f"sent to replica {first['do'][0]['replica']}" in told
    assert main(["explain", str(log), "--turn", "nobody"]) == 2
    log.write_text("no json\n")
    assert main(["explain", str(log)]) == 1
    assert "line 1" in capsys.readouterr().err
