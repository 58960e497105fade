"""The capacity planner: what it estimates, how it ranks, and what it says of impossible asks."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_runtime.cli.main import main
from agent_runtime.cli.plan import token_count
from agent_runtime.report.plan_front import fronts
from agent_runtime.simulation.rack_simulation import SimulationOptions
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from hw_model.agent_load import AGENT_GAP, AgentLoad, ExponentialGap, MixedGap, Slo
from hw_model.capacity_plan import make_plan
from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import DeploymentRequest, plan_deployment
from hw_model.engine.solo_turn import solo_turn_s
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.errors import ConfigError, DoesNotFitError
from hw_model.layout_shapes import Pins
from hw_model.plan_advice import find_relief
from hw_model.planner import Ask, Planner, efficient, shortlist
from hw_model.session_cycle import Replica, ReplicaEstimate, estimate_replica
from hw_model.specs import Precision
from hw_model.step_table import StepTable
from hw_model.step_time import StepTimeModel
from hw_model.ttft_boundary import TtftBoundary
from scheduler.ids import SessionId

BLOCK, LIMITS = 64, EngineLimits()
AT_ENGINE = SimulationOptions(policy="home_for_life", ttft_boundary=TtftBoundary.ENGINE)
CATALOG = Catalog.packaged()


def ask(model: str = "qwen3-235b-a22b", sessions: int = 300, context: int = 128_000, **pins) -> Ask:
    rack = CATALOG.rack(pins.pop("rack", "panjiu-al128"))
    slo = pins.pop("slo", Slo(2.0, 0.05))
    load = AgentLoad(sessions, context, 900, 220, pins.pop("gap", AGENT_GAP))
    replicas = pins.pop("num_replicas", None)
    chip, spec = CATALOG.chip(rack.chip), CATALOG.model(model)
    return Ask(rack, chip, spec, load, slo, Pins(**pins), replicas)


def replica(model: str = "qwen3-8b", tp: int = 1):
    rack = CATALOG.rack("panjiu-al128")
    request = DeploymentRequest(tp=tp, num_replicas=1, block_size_tokens=BLOCK)
    return plan_deployment(rack, CATALOG.chip(rack.chip), CATALOG.model(model), request)


def estimate(deployment, load: AgentLoad) -> ReplicaEstimate:
    table = StepTable(StepTimeModel(deployment, Band.BASE), load, LIMITS, BLOCK)
    replica = Replica(table, deployment.kv_tokens, LIMITS.max_num_seqs)
    return estimate_replica(replica, load, sessions=load.sessions)


def steady_sessions(load: AgentLoad, turns: int = 24, *, shared: bool = True) -> Workload:
    """Contexts that grow around the load's; where ``shared``, none starts cold."""
    rng = np.random.default_rng(0)
    grown = load.append_tokens + load.output_tokens
    start = load.context_tokens - turns * grown // 2
    num_shared = start // BLOCK if shared else 0
    scripts = []
    for session in range(load.sessions):
        first, script = (session + 1) << 32, []
        for number in range(turns):
            isl = start + number * grown
            own = (isl + load.output_tokens) // BLOCK - num_shared
            trunk = ((0, num_shared - 1),) if num_shared else ()
            runs = (*trunk, (first, first + own - 1))
            gap_s = float(rng.exponential(load.gap.mean_s))
            script.append(ScriptedTurn(isl, load.output_tokens, gap_s, runs))
        scripts.append(SessionScript(SessionId(f"s{session}"), tuple(script)))
    return Workload("steady", BLOCK, tuple(scripts))


@pytest.mark.parametrize("sessions", [2, 5, 10])
@pytest.mark.parametrize(
    ("model", "tp", "context", "gap_s"),
    [("qwen3-8b", 1, 40_000, 3.0), ("qwen3-235b-a22b", 4, 64_000, 5.0)],
)
def test_means_are_near_those_of_the_simulator(model, tp, context, gap_s, sessions) -> None:
    load = AgentLoad(sessions, context, 900, 220, ExponentialGap(gap_s))
    deployment = replica(model, tp)
    planned = estimate(deployment, load)
    options = replace(AT_ENGINE, start_window_s=2 * gap_s)
    run = simulate(steady_sessions(load), deployment, options, stopwatch=lambda: 0.0)
    warm = 3 * sessions
    assert planned.tpot_s == pytest.approx(run.tpot_s[warm:].mean(), rel=0.2)
    assert planned.ttft_s == pytest.approx(run.ttft_s[warm:].mean(), rel=0.2)


def test_a_replica_whose_kv_is_too_small_thrashes_as_the_simulator_says() -> None:
    load = AgentLoad(26, 48_000, 900, 220, ExponentialGap(3.0))
    deployment = replica()
    planned = estimate(deployment, load)
    workload = steady_sessions(load, 16, shared=False)
    run = simulate(workload, deployment, AT_ENGINE, stopwatch=lambda: 0.0)
    assert planned.miss_share > 0.9
    assert run.summary.prefix_hit_ratio < 0.1
    assert planned.ttft_s == pytest.approx(run.ttft_s.mean(), rel=0.3)


def test_one_session_alone_takes_what_the_engine_takes() -> None:
    load = AgentLoad(1, 32_000, 900, 220, ExponentialGap(5.0))
    deployment = replica()
    planned = estimate(deployment, load)
    solo_s = solo_turn_s(
        StepTimeModel(deployment, Band.BASE),
        num_prompt_tokens=32_000,
        num_cached_tokens=32_000 - 900 - BLOCK // 2,
        num_output_tokens=220,
        max_num_batched_tokens=LIMITS.max_num_batched_tokens,
    )
    assert planned.ttft_s + 219 * planned.tpot_s == pytest.approx(solo_s, rel=1e-3)
    assert planned.busy_share == pytest.approx(solo_s / (solo_s + 5), rel=1e-3)


@given(
    sessions=st.integers(1, 60),
    context=st.integers(2_000, 150_000),
    gap_s=st.sampled_from([0.0, 0.5, 5.0, 60.0]),
    output=st.sampled_from([1, 2, 220, 2_000]),
)
@example(sessions=55, context=22_190, gap_s=0.0, output=2)
@settings(max_examples=60, deadline=None)
def test_a_replicas_sessions_add_up(sessions, context, gap_s, output) -> None:
    load = AgentLoad(sessions, context, 900, output, ExponentialGap(gap_s))
    found = estimate(replica(), load)
    cycle_s = gap_s + found.ttft_s + (output - 1) * found.tpot_s
    assert found.turns_per_s * cycle_s == pytest.approx(sessions, rel=1e-2)
    assert 0 <= found.miss_share <= 1
    assert 0 < found.busy_share <= 1
    assert found.decoding_sessions <= sessions + 1e-6


@given(sessions=st.integers(1, 14), context=st.integers(2_000, 48_000))
@settings(max_examples=40, deadline=None)
def test_more_resident_sessions_never_make_a_replica_idler_or_faster(sessions, context) -> None:
    load = AgentLoad(sessions, context, 900, 220, AGENT_GAP)
    some = estimate(replica(), load)
    more = estimate(replica(), replace(load, sessions=sessions + 1))
    assert more.busy_share >= some.busy_share - 1e-6
    assert more.ttft_s >= some.ttft_s * 0.999
    assert more.tpot_s >= some.tpot_s * 0.999
    assert more.turns_per_s >= some.turns_per_s * 0.999


def test_more_replicas_never_lengthen_a_resident_turn() -> None:
    planner = Planner(ask())
    for shape in planner.shapes:
        found = [planner.candidate(shape, n) for n in planner.replica_counts(shape)]
        resident = [c for c in found if c is not None and c.resident_sessions == 300]
        for fewer, more in itertools.pairwise(resident):
            assert more.estimate.ttft_s <= fewer.estimate.ttft_s * 1.001
            assert more.estimate.tpot_s <= fewer.estimate.tpot_s * 1.001


def test_the_low_machine_is_never_better_than_base_nor_base_than_high() -> None:
    for row in make_plan(ask(), 8).rows:
        low, base, high = (row.bands[band] for band in Band)
        assert low.carries <= base.carries <= high.carries
        assert low.estimate.tpot_s >= base.estimate.tpot_s >= high.estimate.tpot_s
        assert low.estimate.ttft_s >= base.estimate.ttft_s >= high.estimate.ttft_s


def test_what_meets_the_ask_comes_first_and_fewest_chips_before_more() -> None:
    ranked = Planner(ask()).candidates()
    meeting = [c for c in ranked if c.meets]
    assert 0 < len(meeting) < len(ranked)
    assert ranked[: len(meeting)] == meeting
    chips = [c.num_chips for c in meeting]
    assert chips == sorted(chips)
    carried = [c.carries for c in ranked[len(meeting) :]]
    assert carried == sorted(carried, reverse=True)


def test_what_a_layout_carries_meets_the_slo_and_one_session_a_replica_more_does_not() -> None:
    planner = Planner(ask())
    for shape in planner.shapes:
        most = planner.capacity(shape, 1)
        for sessions in range(max(1, most), most + 2):
            found = Planner(ask(sessions=sessions)).candidate(shape, 1)
            assert found is not None
            assert found.meets == (sessions <= most)


def test_the_shortlist_has_the_best_of_every_pair_of_precisions() -> None:
    ranked = Planner(ask()).candidates()
    short = shortlist(ranked, 8)
    assert short[0] == ranked[0]
    assert {c.shape.precisions for c in short} == {c.shape.precisions for c in ranked}
    assert sorted(short, key=Planner.rank) == short
    assert set(map(id, efficient(ranked))) <= set(map(id, ranked))


def test_a_relief_is_a_layout_that_carries_more() -> None:
    planner = Planner(ask())
    for candidate in shortlist(planner.candidates(), 8):
        relief = find_relief(planner, candidate)
        if relief is not None:
            carried = planner.capacity(relief.shape, relief.num_replicas)
            assert carried == relief.sessions > candidate.carries
            assert relief.num_chips <= 128


def test_memory_adds_up_to_the_chips_hbm() -> None:
    for model in ("qwen3-235b-a22b", "qwen3.5-397b-a17b"):
        for row in make_plan(ask(model), 4).rows:
            parts = row.memory_bytes
            assert sum(parts.values()) == pytest.approx(row.deployment.chip.hbm_bytes.value)
            assert all(size >= 0 for size in parts.values())


def test_a_model_of_a_thousand_layouts_is_planned_whole() -> None:
    assert len(make_plan(ask("qwen3-8b", 2_000, 32_000), 3).candidates) >= 1_000


def test_the_classes_of_agent_gaps_are_those_published() -> None:
    assert AGENT_GAP.share_beyond(1) == pytest.approx(0.39)
    assert AGENT_GAP.share_beyond(10) == pytest.approx(0.12)
    assert AGENT_GAP.share_beyond(60) == pytest.approx(0.04)
    assert AGENT_GAP.mean_s == pytest.approx(12.86, abs=0.01)
    assert MixedGap(((1.0, 1.0, 2.0),)).mean_excess_s(2.0) == 0


IMPOSSIBLE = [
    ({"context": 120_000_000}, "a session of 120,000,000 + 220 tokens fits no replica"),
    ({"model": "kimi-k2", "rack": "h20-node8"}, "does not fit TP8 on NVIDIA H20"),
    ({"tp": 3}, "TP3 is not possible"),
    ({"pp": 100}, "PP100 is not possible"),
    ({"tp": 4, "ep": 6}, "EP6 is not possible for Qwen3-235B-A22B with TP4: EP is a multiple"),
    ({"ep": 4, "model": "qwen3-8b"}, "EP4: Qwen3-8B has no experts; leave EP at 1"),
    ({"tp": 4, "ep": 16, "pp": 2}, "replicas with stages can't share experts"),
    ({"tp": 4, "ep": 16, "num_replicas": 6}, "4 replicas share one set of experts"),
    ({"tp": 8, "num_replicas": 40}, "40 replicas x TP8 need 320 chips"),
    ({"precision": Precision.INT8}, "does not compute with int8 weights"),
]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE)
def test_an_impossible_ask_says_why(changes, message) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Planner(ask(**changes))


def test_a_context_that_fits_nowhere_is_no_usage_error() -> None:
    with pytest.raises(DoesNotFitError):
        Planner(ask(context=120_000_000))


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    try:
        code = main(["plan", *args])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), captured.err


def test_the_plan_recommends_the_fewest_chips(capsys) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    assert "Fewest chips: " in out
    assert "Without FP4 weights" in out
    assert "replicas that share experts wait for each other" in out


def test_json_has_every_documented_key(capsys) -> None:
    code, out, _ = run(capsys, "--json", "--top", "3")
    plan = json.loads(out)
    assert code == 0
    keys = "model rack ask meets num_candidates num_meeting layouts robust whole_rack solo"
    assert list(plan) == keys.split()
    documented = (Path(__file__).parents[1] / "docs/plan.md").read_text(encoding="utf-8")
    layout = plan["layouts"][0]
    assert list(layout["bands"]) == ["low", "base", "high"]
    parts = (plan, plan["ask"], plan["solo"], layout, layout["bands"]["base"], layout["bottleneck"])
    for key in (key for part in parts for key in part):
        assert f"`{key}`" in documented
    assert len(plan["layouts"]) == 3


UNREACHABLE = [
    (["--slo-ttft", "0.01"], "A TTFT of 10.0 ms is out of reach: a resident session alone"),
    (["--slo-tpot", "0.001"], "A TPOT of 1.00 ms is out of reach"),
    (["--sessions", "5000"], "of 5,000 sessions"),
    (["--sessions", "500", "--tp", "8", "--pp=1", "--replicas", "2"], "Free --tp and --replicas"),
]


@pytest.mark.parametrize(("args", "message"), UNREACHABLE)
def test_an_ask_that_nothing_meets_exits_with_1_and_shows_the_nearest(
    capsys, args, message
) -> None:
    code, out, _ = run(capsys, *args)
    assert code == 1
    assert "Nothing meets the ask." in out
    assert message in out


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot_can_be_a_picture(capsys, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"plan.{suffix}"
    code, out, _ = run(capsys, "--model", "qwen3-8b", "--tp", "1", "--plot", str(target))
    assert code in {0, 1}
    assert "plot: " in out
    magic = {"png": b"\x89PNG", "svg": b"<?xml"}
    assert target.read_bytes().startswith(magic[suffix])


def test_a_front_rises_only_where_something_is_better() -> None:
    candidates = Planner(ask(sessions=100)).candidates()
    for placed in fronts(candidates, lambda c: float(c.carries), lowest=False).values():
        best = [each for each in placed if each.on_front]
        assert [each.value for each in best] == sorted({each.value for each in best})
        assert max(each.value for each in placed) == best[-1].value


USAGE = [
    (["--context", "12x"], "expected a number of tokens such as 900, 128k or 1.5M, got '12x'"),
    (["--tool-gap", "soon"], "expected 'agent' or a mean in seconds"),
    (["--append", "200k"], "can't append 200,000 tokens"),
    (["--plot", "plan.bmp"], "expected a name that ends in .html, .htm, .png, .svg, .pdf"),
    (["--ep", "3"], "EP3 is not possible for Qwen3-235B-A22B with TP1"),
    (["--hit", "1.5"], "expected a share from 0 to 1"),
    (["--hit", "0.5", "--append", "9"], "not allowed with"),
    (["--model", "gpt-9"], "unknown model 'gpt-9'"),
    (["--plot", "/no/such/folder/out.html"], "not a file in an existing directory"),
]


@pytest.mark.parametrize(("args", "message"), USAGE)
def test_a_wrong_command_line_exits_with_2(capsys, args, message) -> None:
    code, out, err = run(capsys, *args)
    assert (code, out) == (2, "")
    assert message in err


def test_token_counts_are_read_in_thousands_and_millions() -> None:
    assert [token_count(text) for text in ("900", "128k", "1.5M")] == [900, 128_000, 1_500_000]


def test_the_page_needs_nothing_else(capsys, tmp_path: Path) -> None:
    target = tmp_path / "plan.html"
    code, _, _ = run(capsys, "--plot", str(target))
    page = target.read_text(encoding="utf-8")
    assert code == 0
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert 'src="' not in page
