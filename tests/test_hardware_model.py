"""The catalog, what fits where, and how long a step takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_model.catalog import load_chip, load_model, load_rack, model_names, parse_catalog
from hw_model.claim import Band
from hw_model.deployment import DeploymentRequest, plan_deployment
from hw_model.errors import CatalogError, ConfigError, DoesNotFitError, UnknownNameError
from hw_model.specs import ModelSpec, Precision
from hw_model.step_time import StepShape, StepTimeModel
from tests.engines import deployment

# Totals of the published shapes, in billions, and BF16 KV in KiB a token.
PUBLISHED = {
    "qwen3-8b": (8.19, 8.19, 144),
    "qwen3-32b": (32.76, 32.76, 256),
    "qwen3-30b-a3b": (30.5, 3.35, 96),
    "qwen3-235b-a22b": (235.1, 22.2, 188),
    "qwen3-coder-480b-a35b": (480.2, 35.5, 248),
    "qwen2.5-72b": (72.7, 72.7, 320),
    "llama-3.1-8b": (8.03, 8.03, 128),
    "llama-3.1-70b": (70.6, 70.6, 320),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_models_shape_adds_up_to_its_published_size(name: str) -> None:
    total, active, kv_kib = PUBLISHED[name]
    model = load_model(name)
    assert model.num_params / 1e9 == pytest.approx(total, rel=0.005)
    assert model.num_active_params / 1e9 == pytest.approx(active, rel=0.005)
    assert model.kv_bytes_per_token(1, Precision.BF16) == kv_kib * 1024


def test_every_model_of_the_catalog_is_checked_against_its_size() -> None:
    assert model_names() == sorted(PUBLISHED)


def test_every_number_of_the_chip_has_a_band_that_is_ordered_by_merit() -> None:
    for name, claim in load_chip("m890").claims().items():
        low, base, high = (claim.at(band) for band in Band)
        rising = [low, base, high]
        if name.endswith(("_latency_s", "_overhead_s")):
            rising.reverse()
        assert rising == sorted(rising), name
        assert claim.source


def test_the_unpublished_numbers_are_never_points_and_never_vendor_claims() -> None:
    chip = load_chip("m890")
    for claim in (chip.hbm_bytes_per_s, chip.bf16_flops_per_s, chip.fp8_flops_per_s):
        assert claim is not None
        assert claim.at(Band.LOW) < claim.at(Band.BASE) < claim.at(Band.HIGH)
        assert claim.trust in {"inferred", "assumed", "press"}


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'gpt-9'.*qwen3-235b-a22b"):
        load_model("gpt-9")
    with pytest.raises(UnknownNameError, match=r"unknown rack 'nvl72'.*panjiu-al128"):
        load_rack("nvl72")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[x]\ntitle = 1", r"models\.toml: x\.title: "),
        ("x = 1", r"models\.toml: x: expected a table"),
        ("[x", r"models\.toml: not TOML"),
        ("[x]\ntitle = 'X'\nnum_layers = 0", r"models\.toml: x\.num_layers: .*greater than 0"),
    ],
)
def test_a_broken_catalog_names_the_file_and_the_key(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        parse_catalog(text, ModelSpec, file="models.toml")


def test_kv_heads_are_replicated_when_the_group_is_larger_than_they_are_many() -> None:
    model = load_model("qwen3-235b-a22b")  # four KV heads
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
    field = data.draw(st.sampled_from(StepShape.__slots__))
    values = {name: getattr(shape, name) for name in StepShape.__slots__}
    values[field] += data.draw(st.integers(1, 1000))
    assert 0 < step_time.step_s(shape) <= step_time.step_s(StepShape(**values))


@given(st.integers(1, 256), st.integers(0, 10_000_000))
def test_a_decode_step_is_affine_in_its_summed_context(num_sequences: int, kv: int) -> None:
    step_time = StepTimeModel(deployment("qwen3-235b-a22b"), Band.BASE)
    fixed_s, per_kv_token_s = step_time.decode_line(num_sequences)
    step_s = step_time.step_s(StepShape(num_sequences, kv, 0.0, num_sequences, 0))
    assert step_s == pytest.approx(fixed_s + per_kv_token_s * kv, rel=1e-12)


@given(shapes)
def test_the_optimistic_machine_is_never_slower(shape: StepShape) -> None:
    rack, chip, model = (load_rack("panjiu-al128"), load_chip("m890"), load_model("qwen3-8b"))
    times = [
        StepTimeModel(
            plan_deployment(rack, chip, model, DeploymentRequest(), band=band), band
        ).step_s(shape)
        for band in Band
    ]
    assert times == sorted(times, reverse=True)
