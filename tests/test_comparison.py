"""What a comparison rests on: load, cells, what is kept of them, statistics, workers."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typing_extensions import override

from agent_runtime.comparison.capacity import rack_capacity
from agent_runtime.comparison.cell import Bench, Cell, CellResult, jain_index, run_cell
from agent_runtime.comparison.cell_store import CellStore, bench_digest
from agent_runtime.comparison.offered_load import offered
from agent_runtime.comparison.packing import packed, unpacked
from agent_runtime.comparison.statistics import Estimate, paired_ratio, t_975, verdict
from agent_runtime.comparison.sweep import FailedCell, StartedCells, sweep
from hw_model.claim import Band
from hw_model.engine.solo_turn import solo_turn_s
from hw_model.step_time import StepTimeModel
from scheduler.ids import ReplicaId
from scheduler.policies import POLICIES, PolicyEntry
from scheduler.rack import Rack
from scheduler.session import Session, Turn
from tests.comparisons import bench, broken, result
from tests.engines import deployment
from tests.scripts import growing_session, workload


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
    assert one.jct_mean_s is not None
    assert one.jct_max_s is not None
    assert one.jct_mean_s <= one.jct_max_s
    assert one.jain_slowdown is not None
    assert 0 < one.jain_slowdown <= 1


def test_jain_s_index() -> None:
    assert jain_index([1.0, 1.0, 1.0]) == 1.0
    assert jain_index([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain_index([1.0, 2.0, 3.0]) == pytest.approx(36 / 42)
    assert jain_index([]) is None


def test_an_estimate_has_student_s_interval() -> None:
    found = Estimate.of([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert Estimate.of([5.0]) == Estimate(5.0, None, None)
    assert Estimate.of([]) is None


def test_student_s_t_is_the_table_s_and_never_narrower_beyond_it() -> None:
    assert [t_975(n) for n in (1, 4, 9, 30)] == [12.706, 2.776, 2.262, 2.042]
    assert [t_975(n) for n in (31, 39, 40, 60, 99, 100, 5000)] == [
        2.042, 2.042, 2.021, 2.0, 2.0, 1.984, 1.984,
    ]  # fmt: skip


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
    # Ratios 1/2 and 3/4: logarithms -.6931 and -.2877, their mean -.4904, s .2867, t 12.706.
    assert found.ratio.mean == pytest.approx((1 / 2 * 3 / 4) ** 0.5)
    assert found.ratio.low == pytest.approx(0.0466, rel=1e-3)
    assert found.ratio.high == pytest.approx(8.049, rel=1e-3)
    assert verdict(results[:2], "panjiu", 1.0, "jct_mean_s") is None


def test_only_seeds_that_both_have_are_paired_and_nothing_is_a_share_of_nothing() -> None:
    results = [result("panjiu", 0, 10.0), result("mori", 0, 20.0), result("mori", 1, 99.0)]
    assert paired_ratio(results, "panjiu", "mori", 1.0, "jct_mean_s") == Estimate(0.5, None, None)
    assert paired_ratio(results, "panjiu", "mori", 1.0, "pauses") is None
    assert paired_ratio(results, "panjiu", "plas", 1.0, "jct_mean_s") is None


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


def test_a_digest_is_the_same_in_every_process() -> None:
    program = (
        "from tests.comparisons import bench\n"
        "from agent_runtime.comparison.cell_store import bench_digest\n"
        "print(bench_digest(bench()))\n"
    )
    root = Path(__file__).parents[1]
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()
    assert printed == bench_digest(bench())


class Delaying:
    """Lets every turn after a session's first wait for five seconds, or all for ever."""

    def __init__(self, *, for_ever: bool = False) -> None:
        self._for_ever = for_ever
        self._due: list[tuple[float, Turn]] = []

    @property
    def next_wake_s(self) -> float | None:
        return self._due[0][0] if self._due else None

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        if self._for_ever:
            return
        if turn.session.num_turns_ended:
            self._due.append((rack.now_s + 5.0, turn))
        else:
            rack.dispatch(turn, ReplicaId(0))

    def woken(self, rack: Rack) -> None:
        while self._due and self._due[0][0] <= rack.now_s:
            rack.dispatch(self._due.pop(0)[1], ReplicaId(0))

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None: ...

    def turn_ended(self, turn: Turn, rack: Rack) -> None: ...

    def session_closed(self, session: Session, rack: Rack) -> None: ...


def test_turns_held_after_their_session_s_first_are_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "delaying", PolicyEntry(lambda _: Delaying(), "a test"))
    held = run_cell(bench(), Cell("delaying", 0.1, 0))
    at_once = run_cell(bench(), Cell("round_robin", 0.1, 0))
    assert held.pauses == 6 * 3
    assert held.longest_held_s == pytest.approx(5.0)
    assert at_once.pauses == 0
    assert at_once.longest_held_s == pytest.approx(0.0, abs=1e-6)
    assert held.jct_mean_s is not None
    assert held.jct_mean_s >= 3 * 5.0


def test_rates_are_over_the_time_from_the_first_arrival_to_the_last_end() -> None:
    made = bench()
    # At this load they come within an instant, so the last to end takes longest.
    found = run_cell(made, Cell("panjiu", 1e6, 0))
    assert found.jct_max_s == pytest.approx(found.simulated_s, rel=1e-3)
    assert found.sessions_per_h == pytest.approx(6 * 3600 / found.simulated_s)
    assert found.turns_per_s == pytest.approx(24 / found.simulated_s)
    strict = run_cell(dataclasses.replace(made, slo_slowdown=0.5), Cell("panjiu", 1e6, 0))
    assert (found.good_ratio, strict.good_ratio, strict.goodput_per_h) == (1.0, 0.0, 0.0)
    assert found.goodput_per_h == found.sessions_per_h
    assert found.idle_kv_byte_s > 0


def test_sessions_too_long_for_a_replica_fail_and_count_as_not_good() -> None:
    made = bench()
    long = growing_session("long", 99, start=900_000)
    mixed = dataclasses.replace(made.workload, sessions=(*made.workload.sessions, long))
    found = run_cell(dataclasses.replace(made, workload=mixed), Cell("panjiu", 0.5, 0))
    assert (found.sessions, found.failed_sessions) == (6, 1)
    assert found.good_ratio == pytest.approx(6 / 7)
    alone = dataclasses.replace(mixed, sessions=(long,))
    nothing = run_cell(dataclasses.replace(made, workload=alone), Cell("panjiu", 0.5, 0))
    assert nothing.jct_mean_s is None
    assert (nothing.sessions, nothing.failed_sessions, nothing.sessions_per_h) == (0, 1, 0.0)


def test_a_policy_that_raises_or_holds_for_ever_fails_its_own_cells_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(POLICIES, "broken", PolicyEntry(broken, "a test"))
    for_ever = PolicyEntry(lambda _: Delaying(for_ever=True), "a test")
    monkeypatch.setitem(POLICIES, "for_ever", for_ever)
    cells = [Cell(name, 0.9, 0) for name in ("broken", "for_ever", "panjiu")]
    steps = list(sweep(bench(), cells, num_jobs=1))
    assert [s.cells for s in steps if isinstance(s, StartedCells)] == [(cell,) for cell in cells]
    first, second, third = (step for step in steps if not isinstance(step, StartedCells))
    assert first == FailedCell(cells[0], "ZeroDivisionError: by design")
    assert isinstance(second, FailedCell)
    assert "6 of 6 sessions never ended" in second.error
    assert isinstance(third, CellResult)


def test_a_bench_comes_out_of_its_packing_as_it_went_in() -> None:
    made = bench()
    again = unpacked(packed(made))
    assert isinstance(again, Bench)
    assert again == made
    assert again is not made
    assert bench_digest(again) == bench_digest(made)


class Deadly:
    """What kills the process that reads it."""

    @override
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)


def test_workers_give_the_same_results_and_one_that_dies_costs_its_own_cell_alone() -> None:
    made = bench()
    deadly = Cell(Deadly(), 0.5, 0)  # type: ignore[arg-type]
    cells = [Cell("panjiu", 0.5, 0), deadly, Cell("panjiu", 0.9, 1)]
    steps = [s for s in sweep(made, cells, num_jobs=2) if not isinstance(s, StartedCells)]
    failed = [step for step in steps if isinstance(step, FailedCell)]
    assert [f.cell for f in failed] == [deadly]
    assert "its process died" in failed[0].error
    done = {step.load: step for step in steps if isinstance(step, CellResult)}
    assert done == {0.5: run_cell(made, cells[0]), 0.9: run_cell(made, cells[2])}
