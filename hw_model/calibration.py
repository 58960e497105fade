"""Fits a chip's efficiencies and overheads to what was measured on it.

Peaks and sizes are facts and stay; what is fitted is how much of them is reached and what comes on
top. Few numbers, so that a handful of measurements is enough and the fit carries over to loads that
were not measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hw_model.claim import Band, Claim, Trust
from hw_model.deployment import DeploymentRequest, plan_deployment
from hw_model.engine.closed_loop import ClosedLoopLoad, ClosedLoopResult, run_closed_loop
from hw_model.engine.engine_core import EngineCore
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.errors import ConfigError
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec
from hw_model.step_time import StepTimeModel

FITTED = (
    "gemm_efficiency",
    "attention_efficiency",
    "expert_gemm_flops_per_s",
    "hbm_efficiency",
    "layer_overhead_s",
    "expert_layer_overhead_s",
    "prefill_layer_overhead_s",
    "step_overhead_s",
    "request_overhead_s",
    "all_reduce_latency_s",
)
MAX_NUM_SEQS = 1024
"""vLLM's default on cards of 70 GB and more."""

ROUNDS = 5
"""Requests a client sends in a prediction, one of them to warm up."""

LEAST_OVERHEAD_S = 1e-6
"""No launch, collective or host work is shorter."""

FIRST_STEP, LAST_STEP = 1.6, 1.04
"""The search multiplies and divides each number by this, then by ever less."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One closed-loop benchmark of a chip.

    Attributes:
        isl_tokens, osl_tokens: The longest prompt and output.
        concurrency: Clients that each send their next request at once.
        ttft_s, tpot_s: Means.
        spread: Lengths fill ``[1 - spread, 1]`` of the longest; 0 when all are equal.
    """

    model: ModelSpec
    precision: Precision
    tp: int
    isl_tokens: int
    osl_tokens: int
    concurrency: int
    ttft_s: float
    tpot_s: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted chip, and how far predictions are off: ratios of predicted to measured.

    Attributes:
        chip: With the fitted numbers as points, trust ``measured``.
        before, after: ``(TTFT, TPOT)`` ratios, one pair a measurement.
    """

    chip: ChipSpec
    before: tuple[tuple[float, float], ...]
    after: tuple[tuple[float, float], ...]


def predict(chip: ChipSpec, measurement: Measurement) -> ClosedLoopResult:
    """Return what the engine gives for a measurement's load.

    Raises:
        ConfigError: The model or a request does not fit.
    """
    rack = RackSpec(
        name="bench",
        title=f"{measurement.tp} x {chip.title}",
        chip=chip.name,
        num_chips=_count(measurement.tp),
        domain_chips=_count(measurement.tp),
    )
    request = DeploymentRequest(precision=measurement.precision, tp=measurement.tp)
    deployment = plan_deployment(rack, chip, measurement.model, request)
    core = EngineCore(
        KvManager(deployment.kv_blocks, deployment.block_size_tokens),
        EngineLimits(max_num_seqs=MAX_NUM_SEQS),
        StepTimeModel(deployment, Band.BASE),
        progress=False,
    )
    load = ClosedLoopLoad(
        isl_tokens=measurement.isl_tokens,
        osl_tokens=measurement.osl_tokens,
        concurrency=measurement.concurrency,
        num_requests=ROUNDS * measurement.concurrency,
        spread=measurement.spread,
    )
    return run_closed_loop(core, load)


def fit_chip(
    chip: ChipSpec,
    measurements: Sequence[Measurement],
    *,
    source: str,
    on_try: Callable[[], None] | None = None,
) -> Fit:
    """Fit ``chip`` to ``measurements`` by coordinate search on the mean absolute log error.

    Args:
        chip: Where the search starts; its base band.
        measurements: At least two.
        source: What the claims that moved name as their source.
        on_try: Called after every set of numbers tried.

    Raises:
        ConfigError: Too few measurements, or one that does not fit the chip.
    """
    if len(measurements) < 2:  # noqa: PLR2004 - one says nothing of the slope
        raise ConfigError("a fit needs at least two measurements; more at other lengths are better")

    def loss(candidate: ChipSpec) -> float:
        ratios = _ratios(candidate, measurements)
        if on_try is not None:
            on_try()
        return sum(abs(math.log(ratio)) for pair in ratios for ratio in pair) / len(ratios)

    best = _with_values(chip, {field: _value(chip, field) for field in FITTED}, source)
    best_loss, step = loss(best), FIRST_STEP
    while step > LAST_STEP:
        improved = False
        for field, factor in itertools.product(FITTED, (step, 1 / step)):
            values = {name: _value(best, name) for name in FITTED}
            values[field] *= factor
            if not _is_possible(field, values[field]):
                continue
            candidate = _with_values(chip, values, source)
            candidate_loss = loss(candidate)
            if candidate_loss < best_loss:
                best, best_loss, improved = candidate, candidate_loss, True
        if not improved:
            step = math.sqrt(step)
    values = {name: _value(best, name) for name in FITTED}
    moved = {name: value for name, value in values.items() if value != _value(chip, name)}
    fitted = _with_values(chip, moved, source)
    return Fit(fitted, _ratios(chip, measurements), _ratios(fitted, measurements))


def _is_possible(field: str, value: float) -> bool:
    return value <= 1 if field.endswith("_efficiency") else value >= LEAST_OVERHEAD_S


def _ratios(chip: ChipSpec, measurements: Sequence[Measurement]) -> tuple[tuple[float, float], ...]:
    predictions = [predict(chip, measurement) for measurement in measurements]
    return tuple(
        (own.ttft_s / real.ttft_s, own.tpot_s / real.tpot_s)
        for own, real in zip(predictions, measurements, strict=True)
    )


def _value(chip: ChipSpec, field: str) -> float:
    claim: Claim = getattr(chip, field)
    return claim.value


def _with_values(chip: ChipSpec, values: dict[str, float], source: str) -> ChipSpec:
    claims = {
        field: Claim(value=value, source=source, trust=Trust.MEASURED)
        for field, value in values.items()
    }
    return chip.model_copy(update=claims)


def _count(number: int) -> Claim:
    return Claim(value=number, source="as measured", trust=Trust.MEASURED)
