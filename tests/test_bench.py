"""Comparisons of policies: load, cells, what is kept on disk, statistics, what is shown."""

import csv
import json
from pathlib import Path

import pytest

from agent_runtime.cli.main import main
from agent_runtime.comparison.capacity import rack_capacity
from agent_runtime.comparison.cell import Bench, Cell, CellResult, jain_index, run_cell
from agent_runtime.comparison.cell_store import CellStore, bench_digest
from agent_runtime.comparison.offered_load import offered
from agent_runtime.comparison.statistics import Estimate, verdict
from agent_runtime.comparison.sweep import FailedCell, sweep
from hw_model.claim import Band
from hw_model.engine.solo_turn import solo_turn_s
from hw_model.step_time import StepTimeModel
from scheduler.policies import POLICIES, PolicyEntry
from tests.engines import deployment
from tests.scripts import growing_session, workload


def bench() -> Bench:
    sessions = workload(*(growing_session(f"s{n}", n, start=3000 * (n + 1)) for n in range(6)))
    plan = deployment("qwen3-8b", num_replicas=2)
    capacity = rack_capacity(sessions, plan, Band.BASE)
    return Bench(sessions, plan, capacity, Band.BASE)


def result(policy: str, seed: int, jct_s: float, load: float = 1.0) -> CellResult:
    fields = dict.fromkeys(CellResult.model_fields, 0)
    return CellResult.model_validate(
        {**fields, "policy": policy, "load": load, "seed": seed, "jct_mean_s": jct_s}
    )


def test_a_session_alone_takes_what_its_turns_and_gaps_take() -> None:
    script = growing_session("a", 0, num_turns=1, start=5000)
    plan = deployment("qwen3-8b", num_replicas=3)
    capacity = rack_capacity(workload(script), plan, Band.BASE)
    turn = script.turns[0]
    alone_s = solo_turn_s(
        StepTimeModel(plan, Band.BASE),
        num_prompt_tokens=turn.isl_tokens,
        num_cached_tokens=0,
        num_output_tokens=turn.osl_tokens,
        max_num_batched_tokens=8192,
    )
    assert capacity.alone_s == pytest.approx(alone_s, rel=0.05)
    assert capacity.compute_share == 1.0
    assert capacity.sessions_per_s * alone_s > 3, "a full batch does more than one after the other"


def test_capacity_is_proportional_to_replicas_and_scarce_kv_lowers_it() -> None:
    sessions = workload(*(growing_session(f"s{n}", n, start=300_000) for n in range(4)))
    few, many = (
        rack_capacity(sessions, deployment("qwen3-8b", num_replicas=n), Band.BASE) for n in (2, 6)
    )
    assert many.sessions_per_s == pytest.approx(3 * few.sessions_per_s)
    assert max(few.compute_share, few.room_share) == 1.0


def test_the_same_seed_offers_the_same_sessions_at_every_load_only_sooner() -> None:
    made = bench()
    slow, fast = (
        offered(made.workload, made.capacity, load=load, num_sessions=15, seed=3)
        for load in (0.5, 1.0)
    )
    assert [s.session_id for s in slow.sessions] == [s.session_id for s in fast.sessions]
    assert len({s.session_id for s in slow.sessions}) == 15
    assert slow.arrives_s is not None
    assert fast.arrives_s is not None
    assert slow.arrives_s == pytest.approx([2 * at_s for at_s in fast.arrives_s])
    own = {first for s in slow.sessions for t in s.turns for first, _ in t.block_id_runs}
    assert len(own) >= 15, "those that come again have KV of their own"


def test_a_cell_is_the_same_whenever_it_runs_and_counts_every_session() -> None:
    cell = Cell("panjiu", 0.9, 1)
    one, two = run_cell(bench(), cell), run_cell(bench(), cell)
    assert one == two
    assert (one.sessions, one.failed_sessions) == (6, 0)
    assert one.jct_mean_s <= one.jct_max_s
    assert 0 < one.jain_slowdown <= 1


def test_jain_s_index() -> None:
    assert jain_index([1.0, 1.0, 1.0]) == 1.0
    assert jain_index([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain_index([1.0, 2.0, 3.0]) == pytest.approx(36 / 42)


def test_an_estimate_has_student_s_interval() -> None:
    found = Estimate.of([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert Estimate.of([5.0]) == Estimate(5.0, None, None)


def test_the_best_rival_is_nobody_who_knows_the_future_and_ratios_are_by_seed() -> None:
    results = [
        *(result("panjiu", seed, jct_s) for seed, jct_s in ((0, 10.0), (1, 30.0))),
        *(result("mori", seed, jct_s) for seed, jct_s in ((0, 20.0), (1, 40.0))),
        *(result("round_robin", seed, jct_s) for seed, jct_s in ((0, 90.0), (1, 90.0))),
        *(result("clairvoyant", seed, 1.0) for seed in (0, 1)),
    ]
    found = verdict(results, "panjiu", 1.0, "jct_mean_s")
    assert found is not None
    assert found.rival == "mori"
    assert found.ratio.mean == pytest.approx((10 / 20 + 30 / 40) / 2)
    assert verdict(results[:2], "panjiu", 1.0, "jct_mean_s") is None


def test_finished_cells_survive_a_torn_line_and_only_for_the_same_inputs(tmp_path: Path) -> None:
    store = CellStore(tmp_path, "digest")
    store.add(result("panjiu", 0, 1.0))
    store.add(result("mori", 0, 2.0))
    file = tmp_path / "cells.jsonl"
    file.write_bytes(file.read_bytes() + b'{"of": "digest", "policy": "to')
    again = CellStore(tmp_path, "digest")
    assert again.results == store.results
    again.add(result("plas", 0, 3.0))
    assert len(CellStore(tmp_path, "digest").results) == 3
    assert CellStore(tmp_path, "another").results == {}


def test_a_digest_tells_inputs_apart() -> None:
    made = bench()
    other = Bench(made.workload, made.deployment, made.capacity, Band.LOW)
    assert bench_digest(made) == bench_digest(bench())
    assert bench_digest(made) != bench_digest(other)


def test_a_policy_that_raises_fails_its_own_cells_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setitem(POLICIES, "broken", PolicyEntry(broken, "a test"))  # type: ignore[arg-type]
    made = bench()
    cells = [Cell("broken", 0.9, 0), Cell("panjiu", 0.9, 0)]
    failed, done = sweep(made, cells, num_jobs=1)
    assert failed == FailedCell(cells[0], "ZeroDivisionError: by design")
    assert isinstance(done, CellResult)


def test_the_command_compares_resumes_and_writes_what_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "bench", "--sessions", "coding-agents", "--limit", "6", "--model", "qwen3-8b",
        "--replicas", "2", "--policies", "panjiu,round_robin", "--load", "0.5,1", "--seeds", "2",
        "--jobs", "1", "--out", str(tmp_path / "kept"),
    ]  # fmt: skip
    targets = {name: tmp_path / f"out.{name}" for name in ("json", "csv", "html")}
    outputs = [part for name, path in targets.items() for part in (f"--{name}", str(path))]
    assert main([*command, *outputs]) == 0
    shown = capsys.readouterr().out
    assert "panjiu's mean JCT is" in shown
    runs = json.loads(targets["json"].read_text())["runs"]
    assert len(runs) == 8
    with targets["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["policy"] for row in rows] == [run["policy"] for run in runs]
    page = targets["html"].read_text()
    assert "<svg" in page
    assert "round_robin" in page
    assert main([*command, "--json", str(targets["json"])]) == 0
    assert "8 of 8 runs were done before" in capsys.readouterr().err
    assert json.loads(targets["json"].read_text())["runs"] == runs


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--policies", "magic"], "unknown policy 'magic'"),
        (["--load", "0"], "expected a number > 0"),
        (["--json", "/nowhere/x.json"], "--json /nowhere/x.json: not a file"),
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
