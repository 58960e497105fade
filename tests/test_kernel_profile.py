"""Step times from a card's kernel times, and what real runs say of them."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_model.errors import ConfigError
from hw_model.kernel_profile import AllReduceCost, AttentionGrid, ProfiledStepTime
from hw_model.step_time import StepShape

ROOT = Path(__file__).parents[1]
RUNS = Path(os.environ.get("PANJIU_DATA", ROOT.parent / "shared" / "data")) / "vllm_runs"
SIZES = [0, 16, 64, 256, 1024]


def attention_s(chunk: float, before: float, decodes: float, context: float) -> float:
    """A card whose attention is linear in its work."""
    pairs = chunk * (before + chunk / 2)
    return 1e-5 + 1e-10 * pairs + 2e-9 * before + 4e-9 * decodes * context + 2e-7 * decodes


def grid() -> AttentionGrid:
    rows = [
        (chunk, before, decodes, context, attention_s(chunk, before, decodes, context))
        for chunk in SIZES
        for before in (SIZES if chunk else [0])
        for decodes in [0, 1, 8, 64]
        for context in (SIZES[1:] if decodes else [0])
        if chunk or decodes
    ]
    return AttentionGrid(np.array(rows, dtype=np.float64))


def step_time(all_reduce: AllReduceCost | None = None) -> ProfiledStepTime:
    dense = [("qkv_proj", float(size), 1e-5 + 1e-7 * size) for size in [1, 64, 512, 2048]]
    dense += [("embedding", float(size), 1e-6) for size in [1, 64, 512, 2048]]
    heads = [("lm_head", float(size), 1e-3 + 1e-6 * size) for size in [1, 16, 256]]
    return ProfiledStepTime(dense, heads, grid(), num_layers=10, all_reduce=all_reduce)


@given(st.integers(1, 64), st.integers(16, 1024))
def test_a_decode_step_is_affine_and_as_measured(num_sequences: int, context: int) -> None:
    model = step_time()
    fixed_s, per_kv_s = model.decode_line(num_sequences)
    kv_tokens = num_sequences * context
    step_s = model.step_s(StepShape(num_sequences, kv_tokens, 0.0, num_sequences, 0))
    assert step_s == pytest.approx(fixed_s + per_kv_s * kv_tokens)
    expected_s = 10 * (1e-5 + 1e-7 * num_sequences) + 1e-6 + 1e-3 + 1e-6 * num_sequences
    expected_s += 10 * attention_s(0, 0, num_sequences, context)
    assert step_s == pytest.approx(expected_s, rel=0.02)


@pytest.mark.parametrize("chunk", [16, 64, 1024])
@pytest.mark.parametrize("before", [0, 256])
@pytest.mark.parametrize("decodes", [0, 1, 8])
def test_a_mixed_step_on_the_grid_is_as_measured(chunk: int, before: int, decodes: int) -> None:
    context = 256
    shape = StepShape(
        num_tokens=chunk + decodes,
        kv_read_tokens=before + decodes * context,
        prefill_pairs=chunk * (before + chunk / 2),
        num_sequences=1 + decodes,
        num_new_requests=1,
    )
    expected_s = 10 * (1e-5 + 1e-7 * (chunk + decodes)) + 1e-6 + 1e-3 + 1e-6 * (1 + decodes)
    expected_s += 10 * attention_s(chunk, before, decodes, context)
    assert step_time().step_s(shape) == pytest.approx(expected_s, rel=1e-3)


def test_several_short_prompts_cost_less_than_one_long_chunk() -> None:
    model = step_time()
    one = model.step_s(StepShape(1024, 0, 1024 * 512.0, 1, 1))
    eight = model.step_s(StepShape(1024, 0, 8 * 128 * 64.0, 8, 8))
    assert eight < one


def test_collectives_are_added_once_a_step() -> None:
    shape = StepShape(8, 800, 0.0, 8, 0)
    cost = AllReduceCost(latency_s=1e-5, bytes_per_s=1e9, bytes_per_token=100.0, num_per_step=20)
    alone, grouped = step_time().step_s(shape), step_time(cost).step_s(shape)
    assert grouped - alone == pytest.approx(20 * (1e-5 + 8 * 100 / 1e9))


def test_a_profile_that_is_no_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs"):
        AttentionGrid(np.array([[0, 0, 1, 16, 1e-5], [16, 0, 0, 0, 1e-5]], dtype=np.float64))


@pytest.mark.skipif(not RUNS.is_dir(), reason="needs the recorded vLLM runs (set PANJIU_DATA)")
def test_real_runs_are_predicted_within_three_percent_on_the_mean() -> None:
    path = ROOT / "benchmarks" / "fidelity" / "vllm_runs.py"
    spec = importlib.util.spec_from_file_location("vllm_runs", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules["vllm_runs"] = benchmark
    spec.loader.exec_module(benchmark)
    for recorded in benchmark.RUNS:
        run = benchmark.with_fitted_bandwidth(RUNS, recorded)
        outcome = benchmark.predict(RUNS, run)
        for real, own in (outcome.tpot, outcome.e2e):
            assert own.mean() == pytest.approx(real.mean(), rel=0.03), run.name
        real, own = outcome.ttft
        assert own.mean() == pytest.approx(real.mean(), rel=0.06), run.name
        assert np.median(np.abs(outcome.e2e[1] / outcome.e2e[0] - 1)) < 0.02, run.name
