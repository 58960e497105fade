"""A capacity plan: the layouts worth showing, with bands and advice, and what the rack can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hw_model.claim import Band
from hw_model.deployment import HBM_UTILIZATION, Deployment
from hw_model.layout_shapes import Shape
from hw_model.plan_advice import Bottleneck, Relief, find_bottleneck, find_relief
from hw_model.planner import Ask, Candidate, Planner, shortlist
from hw_model.session_cycle import ReplicaEstimate


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One layout of a plan.

    Attributes:
        deployment: At band base; its ``num_replicas`` is the candidate's.
        bands: The candidate on each machine it fits; base always.
        relief: None where no neighbouring layout is better.
    """

    deployment: Deployment
    bands: Mapping[Band, Candidate]
    bottleneck: Bottleneck
    relief: Relief | None

    @property
    def base(self) -> Candidate:
        """The candidate at band base."""
        return self.bands[Band.BASE]

    @property
    def memory_bytes(self) -> dict[str, float]:
        """What each chip's HBM goes to: weights, activations, recurrent state, KV, left to others.

        The five sum to the chip's HBM.
        """
        deployment, chip = self.deployment, self.deployment.chip
        hbm = chip.hbm_bytes.value
        taken = {
            "weights": deployment.weight_bytes_per_chip,
            "activations": chip.activation_bytes.value,
            "kv": deployment.kv_tokens * deployment.kv_bytes_per_token,
        }
        unused = hbm * (1 - HBM_UTILIZATION)
        return {**taken, "state": max(0.0, hbm - unused - sum(taken.values())), "unused": unused}


@dataclass(frozen=True, slots=True)
class SoloTurn:
    """A turn with a replica to itself, on the layout where it is fastest.

    Attributes:
        ttft_s, ttft_shape: Of a resident session, the lowest of all layouts, and where.
        tpot_s, tpot_shape: Likewise.
        cold_ttft_s: On ``ttft_shape``, with nothing of the context cached.
    """

    ttft_s: float
    ttft_shape: Shape
    tpot_s: float
    tpot_shape: Shape
    cold_ttft_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to an ask.

    Attributes:
        candidates: Every layout at band base, best first.
        rows: Those worth showing, best first.
        robust: The best layout with the first row's precisions that meets the ask on the low
            machine too; None if none does, or if the ask is not met at base.
        whole_rack: The layout with the first row's precisions that carries most sessions.
        solo: What no amount of chips improves.
    """

    ask: Ask
    candidates: tuple[Candidate, ...]
    rows: tuple[PlanRow, ...]
    robust: Candidate | None
    whole_rack: PlanRow
    solo: SoloTurn

    @property
    def meets(self) -> bool:
        """Whether any layout meets the ask at band base."""
        return self.candidates[0].meets


def make_plan(
    ask: Ask, most_rows: int, on_layouts: Callable[[int, int], None] | None = None
) -> Plan:
    """Plan for ``ask``.

    Args:
        ask: What to carry, on what, within what.
        most_rows: Layouts worked out with bands and advice, >= 1.
        on_layouts: Called now and then with how many more layouts were estimated, and how many
            there are.

    Raises:
        ConfigError: A pin that the rack, chip or model can't do.
        DoesNotFitError: No layout holds the model, or none one session's context.
    """
    planner = Planner(ask)
    total = planner.num_layouts()
    report = None if on_layouts is None else lambda more: on_layouts(more, total)
    ranked = planner.candidates(report)
    best = ranked[0].shape.precisions
    alike = [candidate for candidate in ranked if candidate.shape.precisions == best]
    robust = next((c for c in alike if c.meets and _meets_at_low(planner, c)), None)
    largest = max(alike, key=lambda c: (c.carries, -c.num_chips))
    return Plan(
        ask=ask,
        candidates=tuple(ranked),
        rows=tuple(_row(planner, candidate) for candidate in shortlist(ranked, most_rows)),
        robust=robust,
        whole_rack=_row(planner, largest),
        solo=_solo(planner),
    )


def _row(planner: Planner, candidate: Candidate) -> PlanRow:
    shape, replicas = candidate.shape, candidate.num_replicas
    bands = {band: planner.candidate(shape, replicas, band) for band in Band}
    return PlanRow(
        deployment=replace(planner.laid_out(shape), num_replicas=replicas),
        bands={band: found for band, found in bands.items() if found is not None},
        bottleneck=find_bottleneck(planner, candidate),
        relief=find_relief(planner, candidate),
    )


def _meets_at_low(planner: Planner, candidate: Candidate) -> bool:
    low = planner.candidate(candidate.shape, candidate.num_replicas, Band.LOW)
    return low is not None and low.meets


def _solo(planner: Planner) -> SoloTurn:
    solo: dict[Shape, ReplicaEstimate] = {}
    for shape in planner.shapes:
        estimate = planner.estimate(shape, 1)
        if estimate is not None:
            solo[shape] = estimate
    by_ttft = min(solo, key=lambda shape: solo[shape].ttft_s)
    by_tpot = min(solo, key=lambda shape: solo[shape].tpot_s)
    return SoloTurn(
        ttft_s=solo[by_ttft].ttft_s,
        ttft_shape=by_ttft,
        tpot_s=solo[by_tpot].tpot_s,
        tpot_shape=by_tpot,
        cold_ttft_s=planner.cold_ttft_s(by_ttft),
    )
