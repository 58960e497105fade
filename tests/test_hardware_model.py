"""The catalog, what fits where, and how long a step takes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_model.claim import Band
from hw_model.deployment import DeploymentRequest, plan_deployment
from hw_model.errors import CatalogError, ConfigError, DoesNotFitError, UnknownNameError
from hw_model.public_claims import checked_claims
from hw_model.specs import Precision
from hw_model.step_time import StepShape, StepShapes, StepTimeModel
from tests.engines import AL128, CATALOG, M890, deployment

# Totals of the published shapes, in billions, and BF16 KV in KiB a token.
PUBLISHED = {
    "qwen3-8b": (8.19, 8.19, 144),
    "qwen3-32b": (32.76, 32.76, 256),
    "qwen3-30b-a3b": (30.5, 3.35, 96),
    "qwen3-235b-a22b": (235.1, 22.2, 188),
    "qwen3-coder-480b-a35b": (480.2, 35.5, 248),
    "qwen2.5-72b": (72.7, 72.7, 320),
    "qwen3-next-80b-a3b": (79.7, 3.87, 24),
    "qwen3.5-27b": (26.9, 26.9, 64),
    "qwen3.5-35b-a3b": (34.7, 3.45, 20),
    "qwen3.5-122b-a10b": (122.1, 9.8, 24),
    "qwen3.5-397b-a17b": (396.3, 17.4, 30),
    "qwen3.7-max": (396.3, 17.4, 30),
    "deepseek-v3": (671.0, 37.6, 68.625),
    "kimi-k2": (1026.4, 32.9, 68.625),
    "glm-4.5": (352.8, 33.6, 368),
    "glm-5": (743.9, 41.8, 87.75),
    "minimax-m2.7": (228.7, 11.0, 248),
    "gpt-oss-120b": (116.8, 5.7, 36),
    "llama-3.1-8b": (8.03, 8.03, 128),
    "llama-3.1-70b": (70.6, 70.6, 320),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_models_shape_adds_up_to_its_published_size(name: str) -> None:
    total, active, kv_kib = PUBLISHED[name]
    model = CATALOG.model(name)
    assert model.num_params / 1e9 == pytest.approx(total, rel=0.005)
    # GLM-5's indexer, 2 % of what a token uses, is not represented.
    assert model.num_active_params / 1e9 == pytest.approx(active, rel=0.02)
    assert model.kv_bytes_per_token(1, Precision.BF16) == kv_kib * 1024


def test_every_model_of_the_catalog_is_checked_against_its_size() -> None:
    assert sorted(CATALOG.models) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", sorted(CATALOG.chips))
def test_every_number_of_a_chip_has_a_band_that_is_ordered_by_merit(name: str) -> None:
    for field, claim in CATALOG.chip(name).claims().items():
        low, base, high = (claim.at(band) for band in Band)
        rising = [low, base, high]
        if field.endswith(("_latency_s", "_overhead_s")):
            rising.reverse()
        assert rising == sorted(rising), field
        assert claim.source


# Recurrent state a sequence, MB, as computed from the published shapes.
STATES = {"qwen3-next-80b-a3b": 77, "qwen3.5-35b-a3b": 64, "qwen3.5-27b": 154} | {
    "qwen3.5-122b-a10b": 154,
    "qwen3.5-397b-a17b": 192,
}


@pytest.mark.parametrize("name", sorted(STATES))
def test_linear_attention_keeps_a_state_a_sequence(name: str) -> None:
    state_mb = CATALOG.model(name).state_bytes_per_sequence() / 1e6
    assert state_mb == pytest.approx(STATES[name], abs=1)


def test_latent_attention_is_replicated_over_a_tp_group() -> None:
    model = CATALOG.model("deepseek-v3")
    assert model.kv_bytes_per_token(8, Precision.BF16) == 61 * 576 * 2


def test_a_stand_in_says_that_it_is_one() -> None:
    model = CATALOG.model("qwen3.7-max")
    assert model.assumed
    assert "assumed" in model.title


def test_what_is_said_in_public_is_checked_against_the_catalog() -> None:
    verdicts = [(claim.claim, claim.holds) for claim in checked_claims(CATALOG)]
    assert verdicts == [
        ("50 % more memory than the 810E", True),
        ("800 GB/s of interconnect, up from 700", True),
        ("a 70B model in full precision fits one chip", True),
        ("a 70B model in full precision fits one chip", False),
        ("three times the performance", True),
        ("three times the performance", False),
        ("three times the performance", False),
    ]


def test_the_unpublished_numbers_are_never_points_and_never_vendor_claims() -> None:
    chip = M890
    for claim in (chip.hbm_bytes_per_s, chip.bf16_flops_per_s, chip.fp8_flops_per_s):
        assert claim is not None
        assert claim.at(Band.LOW) < claim.at(Band.BASE) < claim.at(Band.HIGH)
        assert claim.trust in {"inferred", "assumed", "press"}


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'gpt-9'.*qwen3-235b-a22b"):
        CATALOG.model("gpt-9")
    with pytest.raises(UnknownNameError, match=r"unknown rack 'nvl72'.*panjiu-al128"):
        CATALOG.rack("nvl72")


RACK = (
    "[racks.x]\ntitle = 'X'\nchip = '{chip}'\n"
    "num_chips = {{value = 4, source = 'me', trust = '{trust}'}}\n"
    "domain_chips = {{value = 4, source = 'me', trust = 'measured'}}"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.x]\ntitle = 1", r"my\.toml: models\.x\."),
        ("[models]\nx = 1", r"my\.toml: models\.x: expected a table \[models\.x\]"),
        ("models = 3", r"my\.toml: models: expected tables"),
        ("[x", r"my\.toml: not TOML"),
        ("[toasters.x]", r"my\.toml: toasters: expected \[chips\.NAME\]"),
        ("[racks.x]\ntitle = 'X'\nchip = 'm891'", r"racks\.x\.num_chips: Field required"),
        (
            RACK.format(chip="m891", trust="measured"),
            r"racks\.x\.chip: unknown chip 'm891'; known: .*m890",
        ),
        (
            RACK.format(chip="m890", trust="hearsay"),
            r"racks\.x\.num_chips\.trust: .*'measured', 'vendor'",
        ),
    ],
)
def test_a_broken_catalog_names_the_file_and_the_key(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        CATALOG.with_file(text, file="my.toml")


def test_a_users_rack_and_model_stand_beside_the_packaged_ones() -> None:
    text = (
        "[racks.desk]\ntitle = 'Desk'\nchip = 'h100'\n"
        "num_chips = {value = 2, source = 'me', trust = 'measured'}\n"
        "domain_chips = {value = 2, source = 'me', trust = 'measured'}\n"
        "[models.tiny]\ntitle = 'Tiny'\nnum_layers = 2\nhidden_size = 64\nvocab_size = 100\n"
        "attention = {num_q_heads = 4, num_kv_heads = 2, head_dim = 16, kind = 'gqa'}\n"
        "dense_ffn_size = 128\ntrained_context_tokens = 4096\nsource = 'me'\n"
    )
    catalog = CATALOG.with_file(text, file="my.toml")
    plan = plan_deployment(
        catalog.rack("desk"), catalog.chip("h100"), catalog.model("tiny"), DeploymentRequest()
    )
    assert plan.num_replicas == 2
    assert "panjiu-al128" in catalog.racks


def test_kv_heads_are_replicated_when_the_group_is_larger_than_they_are_many() -> None:
    model = CATALOG.model("qwen3-235b-a22b")  # four KV heads
    four, eight = (model.kv_bytes_per_token(tp, Precision.BF16) for tp in (4, 8))
    assert four == eight


def test_the_default_layout_fills_the_rack_and_leaves_half_of_hbm_to_kv() -> None:
    plan = deployment("qwen3-235b-a22b")
    assert (plan.tp, plan.num_replicas) == (4, 32)
    assert plan.weight_bytes_per_chip < 0.5 * 0.9 * 144e9
    used = plan.weight_bytes_per_chip + plan.kv_tokens * plan.kv_bytes_per_token
    assert used <= 0.9 * 144e9


def test_a_model_that_does_not_fit_says_what_is_missing_and_what_would_fit() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        deployment("qwen3-coder-480b-a35b", tp=2, precision=Precision.BF16)
    text = str(caught.value)
    assert "356.6 GB a chip are missing" in text
    assert "bf16 at TP8 or fp8 at TP4 or fp4 at TP2" in text


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tp": 3}, r"TP3 is not possible.*use one of \[1, 2, 4, 8, 16, 32\]"),
        ({"tp": 128}, "TP128 is not possible"),
        ({"num_replicas": 129}, r"use 1 to 128 replicas"),
    ],
)
def test_an_impossible_layout_says_what_is_possible(kwargs: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        deployment("qwen3-8b", **kwargs)


FIELDS = [field.name for field in dataclasses.fields(StepShape)]
shapes = st.builds(
    StepShape,
    num_tokens=st.integers(1, 8192),
    kv_read_tokens=st.integers(0, 10_000_000),
    prefill_pairs=st.floats(0, 1e10),
    num_sequences=st.integers(1, 256),
    num_new_requests=st.integers(0, 8),
)


@given(shapes, st.sampled_from(["qwen3-8b", "qwen3-235b-a22b"]), st.data())
def test_more_of_anything_never_makes_a_step_shorter(
    shape: StepShape, model: str, data: st.DataObject
) -> None:
    step_time = StepTimeModel(deployment(model), Band.BASE)
    field = data.draw(st.sampled_from(FIELDS))
    values = {name: getattr(shape, name) for name in FIELDS}
    values[field] += data.draw(st.integers(1, 1000))
    assert 0 < step_time.step_s(shape) <= step_time.step_s(StepShape(**values))


@given(st.integers(1, 256), st.integers(0, 10_000_000))
def test_a_decode_step_is_affine_in_its_summed_context(num_sequences: int, kv: int) -> None:
    step_time = StepTimeModel(deployment("qwen3-235b-a22b"), Band.BASE)
    fixed_s, per_kv_token_s = step_time.decode_line(num_sequences)
    step_s = step_time.step_s(StepShape(num_sequences, kv, 0.0, num_sequences, 0))
    assert step_s == pytest.approx(fixed_s + per_kv_token_s * kv, rel=1e-12)


@given(
    st.lists(shapes, min_size=1, max_size=20),
    st.sampled_from([("qwen3-8b", 1, 1), ("qwen3-235b-a22b", 4, 1), ("qwen3-235b-a22b", 4, 16)]),
    st.sampled_from(list(Band)),
)
def test_many_steps_at_once_take_what_each_takes_alone(
    steps: list[StepShape], layout: tuple[str, int, int], band: Band
) -> None:
    model, tp, ep = layout
    step_time = StepTimeModel(deployment(model, tp=tp, ep=ep), band)
    arrays = StepShapes(**{name: np.array([getattr(s, name) for s in steps]) for name in FIELDS})
    alone = np.array([step_time.step_s(step) for step in steps])
    np.testing.assert_allclose(step_time.steps_s(arrays), alone, rtol=1e-9, atol=0)


@given(shapes)
def test_the_optimistic_machine_is_never_slower(shape: StepShape) -> None:
    rack, chip, model = (AL128, M890, CATALOG.model("qwen3-8b"))
    times = [
        StepTimeModel(
            plan_deployment(rack, chip, model, DeploymentRequest(), band=band), band
        ).step_s(shape)
        for band in Band
    ]
    assert times == sorted(times, reverse=True)


def test_a_short_prompt_takes_as_long_as_its_kernels_are_launched_one_by_one() -> None:
    plan = deployment("qwen3-235b-a22b")
    step_time = StepTimeModel(plan, Band.BASE)
    least_s = plan.model.num_layers * M890.prefill_layer_overhead_s.value
    short, longer, long = (
        step_time.step_s(StepShape(tokens, 0, tokens * tokens / 2, 1, 0))
        for tokens in (16, 32, 8192)
    )
    assert short == longer == pytest.approx(least_s)
    assert long > 2 * least_s


def test_halving_the_weights_to_fp4_does_not_halve_the_time_of_a_decode_step() -> None:
    fp8, fp4 = (
        StepTimeModel(deployment("qwen2.5-72b", tp=4, precision=precision), Band.BASE)
        for precision in (Precision.FP8, Precision.FP4)
    )
    decode = StepShape(1, 1000, 0.0, 1, 0)
    assert 0.6 < fp4.step_s(decode) / fp8.step_s(decode) < 1
