"""Fitting a chip to single times of an engine: it finds the machine that made them."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_model.claim import Band, Claim, Trust
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine_fit import EngineFit, fit_engine, with_values
from hw_model.engine_observations import (
    NOTHING,
    Observation,
    ProbeKind,
    budget_of,
    decode_step,
    prompt_steps,
)
from hw_model.errors import ConfigError
from hw_model.kv_room import with_kv_blocks
from hw_model.model_config import model_from_config
from hw_model.nonnegative_least_squares import nonnegative_least_squares
from hw_model.specs import ChipSpec, Precision, RackSpec
from hw_model.step_time import StepShape, StepTimeModel
from hw_model.ttft_boundary import TtftBoundary
from tests.engines import CATALOG

H100 = CATALOG.chip("h100")
BUDGET = 2048
LENGTHS = (16, 64, 256, 1024, 3000, 9000)


def on(chip: ChipSpec, model: str = "qwen3-8b") -> Deployment:
    one = Claim(value=1, source="a test", trust=Trust.MEASURED)
    rack = RackSpec(name="r", title="r", chip=chip.name, num_chips=one, domain_chips=one)
    request = DeploymentRequest(precision=Precision.BF16, tp=1)
    return plan_deployment(rack, chip, CATALOG.model(model), request)


def measured_on(deployment: Deployment) -> list[Observation]:
    """What probes would see of an engine that takes its times from this model."""
    model = StepTimeModel(deployment, Band.BASE)
    front_end = TtftBoundary.CLIENT.front_end(deployment.chip, Band.BASE)
    seen = []

    def see(kind: ProbeKind, label: str, steps: tuple[StepShape, ...], front: int | None) -> None:
        seconds = sum(model.step_s(step) for step in steps)
        seconds += 0.0 if front is None else front_end.before_engine_s(front)
        seen.append(Observation(kind, label, steps, front, seconds))

    beside = decode_step([256] * 3)
    for length in LENGTHS:
        cached = (length - 1) // 16 * 16
        see(ProbeKind.PROMPT, f"{length}", prompt_steps(length, 0, BUDGET, NOTHING), length)
        see(ProbeKind.HIT, f"{length}", prompt_steps(length, cached, BUDGET, NOTHING), length)
        see(ProbeKind.DECODE, f"{length}", (decode_step([length]),), None)
        see(ProbeKind.MIXED, f"{length}", prompt_steps(length, 0, BUDGET, beside), None)
    for size, context in itertools.product((2, 4, 16), (256, 2048)):
        see(ProbeKind.BATCH, f"{size} x {context}", (decode_step([context] * size),), None)
    return seen


def worst(fit: EngineFit) -> float:
    return float(np.abs(fit.errors()).max())


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "gemm_efficiency": st.floats(1e-4, 0.95),
            "attention_efficiency": st.floats(1e-3, 0.95),
            "hbm_efficiency": st.floats(1e-2, 0.95),
            "kv_read_efficiency": st.floats(1e-3, 0.95),
            "step_overhead_s": st.floats(1e-4, 2e-2),
            "sequence_overhead_s": st.floats(1e-6, 1e-3),
            "request_overhead_s": st.floats(1e-4, 2e-2),
            "front_end_overhead_s": st.floats(1e-4, 5e-2),
            "front_end_token_overhead_s": st.floats(1e-8, 1e-5),
            "prefill_layer_overhead_s": st.floats(1e-5, 1e-3),
        }
    )
)
def test_a_fit_finds_a_machine_whose_times_are_those_that_were_measured(
    values: dict[str, float],
) -> None:
    truth = with_values(H100, values, "the truth")
    fit = fit_engine(on(H100), measured_on(on(truth)), source="a test")
    assert worst(fit) < 0.02
    assert float(np.abs(fit.errors()).mean()) < 0.003


@pytest.mark.parametrize("model", ["qwen3-8b", "qwen3-30b-a3b", "deepseek-v3"])
def test_a_fit_to_the_chip_itself_changes_nothing_that_matters(model: str) -> None:
    chip = H100.model_copy(update={"hbm_bytes": H100.hbm_bytes.model_copy(update={"value": 3e12})})
    assert worst(fit_engine(on(chip, model), measured_on(on(chip, model)), source="a test")) < 0.02


def test_numbers_that_the_times_tell_apart_come_back() -> None:
    truth = with_values(
        H100,
        {
            "gemm_efficiency": 0.2,
            "attention_efficiency": 0.1,
            "kv_read_efficiency": 0.3,
            "request_overhead_s": 2e-3,
            "front_end_overhead_s": 9e-3,
            "front_end_token_overhead_s": 3e-6,
            "sequence_overhead_s": 5e-5,
            "prefill_layer_overhead_s": 1e-5,
        },
        "the truth",
    )
    fit = fit_engine(on(H100), measured_on(on(truth)), source="measured on an engine")
    for field, claim in truth.claims().items():
        if field != "prefill_layer_overhead_s":  # nothing is as short as that floor
            assert fit.chip.claims()[field].value == pytest.approx(claim.value, rel=0.02), field
    assert fit.chip.gemm_efficiency.source == "measured on an engine"
    assert fit.chip.gemm_efficiency.trust is Trust.MEASURED
    assert fit.chip.link_bytes_per_s == H100.link_bytes_per_s, "one chip says nothing of links"
    assert fit.chip.expert_gemm_flops_per_s == H100.expert_gemm_flops_per_s


def test_a_few_times_of_a_busy_moment_do_not_move_the_fit() -> None:
    truth = with_values(H100, {"gemm_efficiency": 0.2, "request_overhead_s": 2e-3}, "the truth")
    seen = [each for each in measured_on(on(truth)) for _ in range(3)]
    disturbed = [
        dataclasses.replace(each, seconds=each.seconds * {0: 2, 9: 1e-5}.get(number % 14, 1))
        for number, each in enumerate(seen)
    ]
    fit = fit_engine(on(H100), disturbed, source="a test")
    undisturbed = [each.seconds for each in seen]
    errors = [t.predicted_s / s - 1 for t, s in zip(fit.times, undisturbed, strict=True)]
    assert np.abs(errors).max() < 0.03
    assert np.median(np.abs(fit.noise())) == 0
    assert fit.noise().min() == pytest.approx(-0.5)
    assert fit.noise().max() > 1000


def test_too_little_is_said_to_be() -> None:
    only_prompts = [o for o in measured_on(on(H100)) if o.kind is ProbeKind.PROMPT]
    with pytest.raises(ConfigError, match="nothing of decoding, alone; measure longer"):
        fit_engine(on(H100), only_prompts, source="a test")


def test_a_chip_is_made_to_hold_the_kv_that_was_seen() -> None:
    deployment = on(H100)
    for num_blocks in (1, 1000, deployment.kv_blocks - 100, deployment.kv_blocks, 10**6):
        chip = with_kv_blocks(deployment, num_blocks, source="a test")
        assert on(chip).kv_blocks == num_blocks
    near = with_kv_blocks(deployment, deployment.kv_blocks - 100, source="a test")
    assert near.hbm_bytes == H100.hbm_bytes, "what is not KV then goes to activations"


@given(st.integers(1, 50_000), st.integers(0, 20), st.sampled_from([512, 1024, 2048, 8192]))
def test_a_budget_is_told_from_how_a_prompt_was_cut(length: int, beside: int, budget: int) -> None:
    steps = prompt_steps(length, 0, budget, decode_step([64] * beside))
    assert sum(step.num_tokens - beside for step in steps) == length
    assert all(step.num_tokens <= budget for step in steps)
    assert sum(step.num_new_requests for step in steps) == 1
    found = budget_of(length, beside, len(steps))
    if len(steps) == 1:
        assert found is None
    elif len(steps) > 2:  # of two steps, larger budgets are as good
        assert found == budget


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_least_squares_stay_within_their_bounds_and_can_not_be_bettered(
    num_unknowns: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(12, num_unknowns))
    target = random.normal(size=12)
    x = nonnegative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ x - target)
    assert (x >= 0).all()
    assert (gradient > -1e-8).all(), "no unknown would do better if it grew"
    assert np.abs(gradient[x > 0]).max(initial=0.0) < 1e-8


def test_models_are_read_from_their_configuration() -> None:
    dense = {
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 12288,
        "vocab_size": 151936,
        "max_position_embeddings": 131072,
    }
    known = CATALOG.model("qwen3-8b")
    read = model_from_config({"text_config": dense}, name="qwen3-8b", source=known.source)
    assert read.model_copy(update={"title": known.title}) == known
    experts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    moe = model_from_config({**dense, **experts}, name="m", source="s")
    assert moe.experts is not None
    assert (moe.experts.ffn_size, moe.dense_ffn_size) == (768, 0)
    for change, message in (
        ({"hidden_size": None}, "s: hidden_size: expected a whole number, got None"),
        ({"num_hidden_layers": "x"}, "s: num_hidden_layers: expected a whole number"),
        ({"vocab_size": 0}, "s: vocab_size: "),
        ({"sliding_window": 4096}, "s: sliding_window: "),
        ({"linear_num_value_heads": 32}, "s: linear_num_value_heads: such layers"),
    ):
        with pytest.raises(ConfigError, match=message):
            model_from_config({**dense, **change}, name="m", source="s")
