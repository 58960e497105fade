"""Fits a chip to times measured on a running engine, one by one.

Within one regime (memory or compute bound, above the floor of prompts or on it) every time is
linear in the overheads and in the reciprocals of the rates. So: linearise, solve for what can't be
negative, step as far as the error falls, and again. The regimes are found by starting in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_model.claim import Band, Claim, Trust
from hw_model.deployment import Deployment
from hw_model.engine_observations import Observation, ProbeKind
from hw_model.errors import TooLittleMeasuredError
from hw_model.nonnegative_least_squares import nonnegative_least_squares
from hw_model.specs import ChipSpec
from hw_model.step_costs import StepCosts
from hw_model.step_time import StepShapes, StepTimeModel
from hw_model.ttft_boundary import TtftBoundary

FloatArray = NDArray[np.float64]

NEEDED = (ProbeKind.PROMPT, ProbeKind.DECODE)
"""Without these nothing can be told of an engine."""

LEAST_OVERHEAD_S = 1e-9
SHARES = (0.02, 0.5, 0.9)
"""Where the search starts: reading weights, and the floor of prompts, as shares of the shortest
time they could be in."""

COMPUTE_SHARE = 0.7
"""And computing with weights, of the longest new prompt."""

MAX_ITERATIONS = 40
STEP_SHARES = tuple(0.5**power for power in range(20))
SETTLED = 1e-9
SETTLING = 1 - SETTLED
TOLERATED_ERROR = 0.02
"""Errors beyond count by their size and no longer by its square: some times are off by whatever
else the machine did."""

RIDGE = 1e-6
"""Keeps numbers that the times can't tell apart near where they were."""


@dataclass(frozen=True, slots=True)
class Knob:
    """Numbers of a chip that are fitted as one: they keep their ratio.

    Attributes:
        fields: Of ``ChipSpec``; overheads, or rates and shares of rates.
        is_rate: Whether time is proportional to the reciprocal.
    """

    fields: tuple[str, ...]
    is_rate: bool


KNOBS = (
    Knob(("gemm_efficiency",), is_rate=True),
    Knob(("attention_efficiency",), is_rate=True),
    Knob(("hbm_efficiency",), is_rate=True),
    Knob(("kv_read_efficiency",), is_rate=True),
    Knob(("expert_gemm_flops_per_s",), is_rate=True),
    # One model on one engine can't tell what a step takes from what its layers do.
    Knob(("step_overhead_s", "layer_overhead_s", "expert_layer_overhead_s"), is_rate=False),
    Knob(("prefill_layer_overhead_s",), is_rate=False),
    Knob(("sequence_overhead_s",), is_rate=False),
    Knob(("request_overhead_s",), is_rate=False),
    Knob(("front_end_overhead_s",), is_rate=False),
    Knob(("front_end_token_overhead_s",), is_rate=False),
)
WEIGHTS, FLOOR, COMPUTE = 2, 6, 0
"""Positions in ``KNOBS`` that decide the regime."""

START_TOKEN_OVERHEAD_S = 1e-6
"""Where a chip says nothing of it."""


@dataclass(frozen=True, slots=True)
class FittedTime:
    """An observation and what the fitted chip makes of it."""

    observation: Observation
    predicted_s: float


@dataclass(frozen=True, slots=True)
class EngineFit:
    """A chip fitted to an engine.

    Attributes:
        chip: With the fitted numbers as points, trust ``measured``.
        times: Every observation beside its prediction.
    """

    chip: ChipSpec
    times: tuple[FittedTime, ...]

    def errors(self, kinds: Iterable[ProbeKind] = ProbeKind) -> FloatArray:
        """Return the relative errors of the predictions, one for every time measured."""
        wanted = set(kinds)
        return np.array(
            [
                time.predicted_s / time.observation.seconds - 1
                for time in self.times
                if time.observation.kind in wanted
            ]
        )

    def noise(self, kinds: Iterable[ProbeKind] = ProbeKind) -> FloatArray:
        """Return how far times are from the median of their repetitions: no fit is closer."""
        wanted = set(kinds)
        observations = [t.observation for t in self.times if t.observation.kind in wanted]
        seconds = np.array([observation.seconds for observation in observations])
        errors: FloatArray = _usual_s(observations) / seconds - 1
        return errors


def fit_engine(
    deployment: Deployment, observations: Sequence[Observation], *, source: str
) -> EngineFit:
    """Fit the chip of ``deployment`` to what was measured on an engine.

    Args:
        deployment: The model on the chip where the fit starts; its base band.
        observations: At least those of ``NEEDED``.
        source: What the claims that moved name as their source.

    Raises:
        TooLittleMeasuredError: Kinds of ``NEEDED`` are missing.
    """
    kinds = {observation.kind for observation in observations}
    missing = [kind.value for kind in NEEDED if kind not in kinds]
    if missing:
        raise TooLittleMeasuredError(missing)
    problem = _Problem.of(deployment, observations)
    best = min((problem.solve(start) for start in problem.starts()), key=problem.loss)
    best = problem.without_idle_moves(best)
    chip = problem.chip(best, source)
    return EngineFit(
        chip,
        tuple(
            FittedTime(observation, float(seconds))
            for observation, seconds in zip(observations, problem.predict(best), strict=True)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Problem:
    """The times, ready for many evaluations. Unknowns are multiples of the chip's own times.

    Attributes:
        deployment: Its chip has a number for every knob.
        shapes: All steps of all observations.
        owner: Which observation each step is of.
        front_end_tokens: [observations]
        has_front_end: [observations] 0 or 1.
        measured_s: [observations]
        usual_s: [observations] The median of the repetitions, which errors are relative to: so a
            time far too short, as a client sees that was held up, has no more say than others.
        least: The smallest possible unknowns: no share of a peak is over 1, no overhead is 0.
    """

    deployment: Deployment
    shapes: StepShapes
    owner: NDArray[np.int64]
    front_end_tokens: FloatArray
    has_front_end: FloatArray
    measured_s: FloatArray
    usual_s: FloatArray
    least: FloatArray

    @classmethod
    def of(cls, deployment: Deployment, observations: Sequence[Observation]) -> _Problem:
        """Return the problem of a deployment."""
        chip = _with_all_knobs(deployment.chip)
        steps = [step for observation in observations for step in observation.steps]
        fronts = [observation.front_end_tokens for observation in observations]
        return cls(
            deployment=replace(deployment, chip=chip),
            shapes=StepShapes(
                num_tokens=np.array([step.num_tokens for step in steps]),
                kv_read_tokens=np.array([step.kv_read_tokens for step in steps]),
                prefill_pairs=np.array([step.prefill_pairs for step in steps]),
                num_sequences=np.array([step.num_sequences for step in steps]),
                num_new_requests=np.array([step.num_new_requests for step in steps]),
            ),
            owner=np.repeat(
                np.arange(len(observations)), [len(each.steps) for each in observations]
            ),
            front_end_tokens=np.array([tokens or 0 for tokens in fronts], dtype=np.float64),
            has_front_end=np.array([tokens is not None for tokens in fronts], dtype=np.float64),
            measured_s=np.array([observation.seconds for observation in observations]),
            usual_s=_usual_s(observations),
            least=np.array([_least(chip, knob) for knob in KNOBS]),
        )

    def chip(self, unknowns: FloatArray, source: str) -> ChipSpec:
        """Return the chip with these numbers; those that did not move keep their claims."""
        moved = np.abs(unknowns - 1) > SETTLED
        values: dict[str, float] = {}
        for knob, factor, has_moved in zip(KNOBS, unknowns, moved, strict=True):
            if has_moved:
                values.update(_scaled(self.deployment.chip, knob, float(factor)))
        return with_values(self.deployment.chip, values, source)

    def predict(self, unknowns: FloatArray) -> FloatArray:
        """Return the seconds of every observation."""
        chip = self.chip(unknowns, "fit")
        model = StepTimeModel(replace(self.deployment, chip=chip), Band.BASE)
        steps_s = np.bincount(
            self.owner, weights=model.steps_s(self.shapes), minlength=len(self.measured_s)
        )
        front_end = TtftBoundary.CLIENT.front_end(chip, Band.BASE)
        before_s = front_end.per_request_s + front_end.per_token_s * self.front_end_tokens
        total_s: FloatArray = steps_s + self.has_front_end * before_s
        return total_s

    def loss(self, unknowns: FloatArray) -> float:
        """Return the mean of the relative errors: squares of small ones, sizes of large ones."""
        errors = np.abs(self.predict(unknowns) - self.measured_s) / self.usual_s
        small = np.minimum(errors, TOLERATED_ERROR)
        return float((small * (2 * errors - small)).mean())

    def starts(self) -> list[FloatArray]:
        """Return a place in every regime."""
        costs = StepCosts.of(self.deployment, Band.BASE)
        num_new = int(self.shapes.num_tokens.max())
        compute_s = (costs.dense_flops_s_per_token + costs.expert_flops_s_per_token) * num_new
        one_token_experts = costs.num_experts * (1 - costs.expert_miss**costs.token_copies)
        weights_s = costs.dense_bytes_s + costs.byte_s_per_expert * one_token_experts
        shortest_s, longest_s = float(self.usual_s.min()), float(self.usual_s.max())
        num_longest = int(np.bincount(self.owner).max())
        with_prompt = np.unique(self.owner[self.shapes.prefill_pairs > 0])
        shortest_prompt_s = float(self.usual_s[with_prompt].min())
        places = [np.ones(len(KNOBS))]
        for weights_share, floor_share in itertools.product(SHARES, SHARES):
            place = np.ones(len(KNOBS))
            place[COMPUTE] = COMPUTE_SHARE * longest_s / num_longest / compute_s
            place[WEIGHTS] = weights_share * shortest_s / weights_s
            place[FLOOR] = floor_share * shortest_prompt_s / costs.least_prefill_s
            places.append(np.maximum(place, self.least))
        return places

    def solve(self, unknowns: FloatArray) -> FloatArray:
        """Return the best place that can be reached from a start."""
        loss = self.loss(unknowns)
        for _ in range(MAX_ITERATIONS):
            direction = self._step_from(unknowns)
            tried = (np.maximum(unknowns + share * direction, self.least) for share in STEP_SHARES)
            better = next((place for place in tried if self.loss(place) < loss * SETTLING), None)
            if better is None:
                return unknowns
            unknowns, loss = better, self.loss(better)
        return unknowns

    def without_idle_moves(self, unknowns: FloatArray) -> FloatArray:
        """Return the same place, but for numbers that moved and change nothing by it."""
        seconds = self.predict(unknowns)
        for index in range(len(unknowns)):
            kept = unknowns.copy()
            kept[index] = 1.0
            if np.allclose(self.predict(kept), seconds, rtol=SETTLED, atol=0):
                unknowns = kept
        return unknowns

    def _step_from(self, unknowns: FloatArray) -> FloatArray:
        """Return where to go from here, were this regime all there is."""
        now_s = self.predict(unknowns)
        columns = []
        for index, value in enumerate(unknowns):
            nudged = unknowns.copy()
            nudged[index] = value * (1 + SETTLED**0.5)
            columns.append((self.predict(nudged) - now_s) / (nudged[index] - value))
        errors = np.abs(now_s - self.measured_s) / self.usual_s
        weights = 1 / np.sqrt(np.maximum(errors, TOLERATED_ERROR)) / self.usual_s
        matrix = np.stack(columns, axis=1) * weights[:, None]
        sizes = np.linalg.norm(matrix, axis=0)
        tells = sizes > SETTLED * sizes.max() / unknowns.max()
        scaled = matrix[:, tells] / sizes[tells]
        above = (unknowns - self.least)[tells] * sizes[tells]  # of its bound, in scaled terms
        target = (self.measured_s - now_s) * weights + scaled @ above
        ridge = RIDGE * np.eye(int(tells.sum()))
        solution = nonnegative_least_squares(
            np.concatenate([scaled, ridge]), np.concatenate([target, RIDGE * above])
        )
        step = np.zeros_like(unknowns)
        step[tells] = (solution - above) / sizes[tells]
        return step


def with_values(chip: ChipSpec, values: Mapping[str, float], source: str) -> ChipSpec:
    """Return a chip with these numbers as points that were measured."""
    claims = {
        field: Claim(value=value, source=source, trust=Trust.MEASURED)
        for field, value in values.items()
    }
    return chip.model_copy(update=claims)


def _usual_s(observations: Sequence[Observation]) -> FloatArray:
    """Return, for every observation, the median of the repetitions of its probe."""
    groups: dict[tuple[ProbeKind, str], list[float]] = {}
    for each in observations:
        groups.setdefault((each.kind, each.label), []).append(each.seconds)
    return np.array([np.median(groups[each.kind, each.label]) for each in observations])


def _with_all_knobs(chip: ChipSpec) -> ChipSpec:
    more: dict[str, Claim] = {}
    if chip.kv_read_efficiency is None:
        more["kv_read_efficiency"] = chip.hbm_efficiency
    if chip.front_end_token_overhead_s is None:
        more["front_end_token_overhead_s"] = Claim(
            value=START_TOKEN_OVERHEAD_S, source="where the fit starts", trust=Trust.ASSUMED
        )
    return chip.model_copy(update=more)


def _value(chip: ChipSpec, field: str) -> float:
    claim: Claim = getattr(chip, field)
    return claim.value


def _scaled(chip: ChipSpec, knob: Knob, factor: float) -> dict[str, float]:
    if knob.is_rate:
        return {field: _value(chip, field) / factor for field in knob.fields}
    return {field: max(LEAST_OVERHEAD_S, _value(chip, field) * factor) for field in knob.fields}


def _least(chip: ChipSpec, knob: Knob) -> float:
    """Return the smallest multiple of a knob's times."""
    (field, *_) = knob.fields
    if not knob.is_rate:
        return LEAST_OVERHEAD_S / _value(chip, field)
    return _value(chip, field) if field.endswith("_efficiency") else SETTLED
