"""Spreading a replica: what each degree does to memory, links and steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.collectives import Fabric
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.errors import ConfigError
from hw_model.parallelism import Parallelism, ep_degrees
from hw_model.session_cycle import Coupling
from hw_model.specs import Precision
from hw_model.step_costs import EXPERT_IMBALANCE, StepCosts
from hw_model.step_time import StepShape, StepTimeModel
from tests.engines import deployment

CATALOG = Catalog.packaged()
QWEN, DEEPSEEK = CATALOG.model("qwen3-235b-a22b"), CATALOG.model("deepseek-v3")
DECODE = StepShape(8, 800_000, 0.0, 8, 0)


def test_experts_spread_over_more_chips_leave_each_more_room_for_kv() -> None:
    alone, shared = (deployment("deepseek-v3", tp=8, ep=ep) for ep in (1, 64))
    assert DEEPSEEK.experts is not None
    expert_bytes = DEEPSEEK.experts.num_experts * DEEPSEEK.num_expert_params
    freed = expert_bytes / 8 - expert_bytes / 64
    assert alone.weight_bytes_per_chip - shared.weight_bytes_per_chip == pytest.approx(freed)
    gained = (shared.kv_tokens - alone.kv_tokens) * shared.kv_bytes_per_token
    assert gained == pytest.approx(freed, rel=1e-3)


def test_latent_kv_is_kept_once_a_tp_group_so_a_small_one_holds_more_of_it() -> None:
    wide, narrow = deployment("deepseek-v3", tp=32), deployment("deepseek-v3", tp=4, ep=32)
    assert narrow.kv_tokens * 8 > 6 * wide.kv_tokens


def test_stages_divide_weights_and_kv_but_not_the_time_of_a_step() -> None:
    one, two = (deployment("qwen3-235b-a22b", tp=4, pp=pp) for pp in (1, 2))
    assert two.weight_bytes_per_chip == pytest.approx(one.weight_bytes_per_chip / 2)
    assert two.kv_bytes_per_token == pytest.approx(one.kv_bytes_per_token / 2)
    assert two.num_replicas == one.num_replicas // 2
    one_s, two_s = (StepTimeModel(each, Band.BASE).step_s(DECODE) for each in (one, two))
    assert one_s < two_s < one_s + 50e-6


def test_stages_of_unequal_layers_are_planned_for_the_fullest() -> None:
    plan = deployment("qwen3-235b-a22b", tp=4, pp=4)  # 94 layers: 24, 24, 23, 23
    whole = deployment("qwen3-235b-a22b", tp=4)
    assert plan.weight_bytes_per_chip == pytest.approx(whole.weight_bytes_per_chip * 24 / 94)


def test_the_group_reads_more_experts_than_a_replica_but_each_chip_fewer() -> None:
    alone, shared = (
        StepCosts.of(deployment("qwen3-235b-a22b", tp=4, ep=ep), Band.BASE) for ep in (1, 32)
    )
    assert shared.token_copies == 8
    ratio = shared.byte_s_per_expert / alone.byte_s_per_expert
    assert ratio == pytest.approx(EXPERT_IMBALANCE / 8)


def test_whole_experts_compute_faster_than_slices_of_them() -> None:
    sliced, whole = (
        StepCosts.of(deployment("qwen3-235b-a22b", tp=8, ep=ep), Band.BASE) for ep in (1, 8)
    )
    assert whole.expert_flops_s_per_token < sliced.expert_flops_s_per_token


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        (Parallelism(3), r"TP3 is not possible for Qwen3-235B-A22B.*use one of \[1, 2, 4"),
        (Parallelism(4, pp=17), "PP17 is not possible.*use 1 to 16"),
        (Parallelism(4, pp=0), "PP0 is not possible"),
        (Parallelism(4, ep=5), r"EP5 is not possible.*one of \[4, 8, 16, 32, 64\]"),
        (Parallelism(4, pp=2, ep=8), "replicas with stages can't share experts"),
    ],
)
def test_an_impossible_spread_says_what_is_possible(spread: Parallelism, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spread.check(QWEN, domain_chips=64)


def test_replicas_come_in_whole_groups() -> None:
    assert deployment("qwen3-235b-a22b", tp=4, ep=64).num_replicas == 32
    with pytest.raises(ConfigError, match="use a multiple of 16"):
        deployment("qwen3-235b-a22b", tp=4, ep=64, num_replicas=20)


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_every_ep_degree_on_offer_is_accepted(tp: int, data: st.DataObject) -> None:
    ep = data.draw(st.sampled_from(ep_degrees(QWEN, tp, 64)))
    plan = deployment("qwen3-235b-a22b", tp=tp, ep=ep, precision=Precision.FP4)
    assert plan.parallelism == Parallelism(tp, 1, ep)


@given(st.integers(1, 64), st.integers(0, 1 << 30))
def test_a_collective_costs_more_with_more_ranks(ranks: int, num_bytes: int) -> None:
    fabric = Fabric.of(CATALOG.chip("m890"), CATALOG.rack("panjiu-al128"), Band.BASE)
    for collective in (fabric.all_reduce, fabric.all_to_all):
        few, more = collective(ranks), collective(ranks + 1)
        assert few.latency_s <= more.latency_s
        assert few.s_per_byte * num_bytes <= more.s_per_byte * num_bytes


H100_ALL_REDUCE_S = [
    (8, 1 << 21, 21.0e-6),
    (8, 1 << 24, 122.9e-6),
    (8, 1 << 26, 322.9e-6),
    (4, 1 << 24, 99.9e-6),
    (4, 1 << 27, 614.2e-6),
    (2, 1 << 24, 78.3e-6),
    (2, 1 << 27, 467.1e-6),
]
"""Ranks, bytes, seconds: SGLang's all-reduces in a graph, aiconfigurator's tables (Apache-2.0)."""


@pytest.mark.parametrize(("ranks", "num_bytes", "measured_s"), H100_ALL_REDUCE_S)
def test_all_reduces_are_near_those_measured_on_h100(
    ranks: int, num_bytes: int, measured_s: float
) -> None:
    cost = Fabric.of(CATALOG.chip("h100"), CATALOG.rack("h100-node8"), Band.BASE).all_reduce(ranks)
    assert cost.latency_s + num_bytes * cost.s_per_byte == pytest.approx(measured_s, rel=0.28)


def test_steps_together_are_as_long_as_the_longest() -> None:
    mix = [(0.9, 1.0), (0.1, 5.0)]
    together = Coupling(group_replicas=4).coupled(mix)
    assert sum(share for share, _ in together) == pytest.approx(1.0)
    assert {seconds: share for share, seconds in together}[5.0] == pytest.approx(1 - 0.9**4)


def test_a_batch_in_a_pipeline_waits_for_what_the_others_take_beyond_a_plain_step() -> None:
    mix = [(0.9, 1.0), (0.1, 5.0)]
    behind = Coupling(stages=4).coupled(mix)
    mean_s, alone_s = (sum(share * s for share, s in each) for each in (behind, mix))
    assert mean_s == pytest.approx(alone_s + 0.75 * 0.1 * 4.0)


def test_windows_stop_growing() -> None:
    model = CATALOG.model("gpt-oss-120b")
    window = 18 * 128 * 2 * 8 * 64 * 2
    assert model.state_bytes_per_sequence() == window
    assert model.kv_bytes_per_token(1, Precision.BF16) == 18 * 2 * 8 * 64 * 2
    costs = StepCosts.of(deployment("gpt-oss-120b", tp=1), Band.BASE)
    assert costs.per_sequence_s > window / 8e12
    assert math.isfinite(costs.dense_flops_s_per_token)
    assert EngineLimits().max_num_seqs * window < 2e9
