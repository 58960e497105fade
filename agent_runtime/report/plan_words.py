"""What a capacity plan says in sentences."""

from __future__ import annotations

import math

from agent_runtime.report import quantities
from hw_model.capacity_plan import Plan, PlanRow
from hw_model.claim import Band
from hw_model.layout_shapes import Shape
from hw_model.plan_advice import Limit
from hw_model.planner import Candidate
from hw_model.specs import Precision
from hw_model.step_costs import EXPERT_IMBALANCE

_SHOWN_BYTES = 1e8
_MEMORY = {
    "weights": "weights",
    "activations": "activations",
    "state": "recurrent state",
    "kv": "KV",
    "unused": "left to the driver and others",
}


def recommendation(plan: Plan) -> list[str]:
    """Return what to do, most important first."""
    if not plan.meets:
        return [*_why_not(plan), _memory(plan.rows[0])]
    best = plan.rows[0]
    fewest = f"Fewest chips: {_layout(best.base)}, {_chips(plan, best.base)}"
    sentences = [f"{fewest}; it carries {_carries(best)} sessions. {_robustness(plan)}"]
    wider = _without_fp4(plan)
    if wider is not None:
        sentences.append(
            f"Without FP4 weights, which need a check of the answers' quality: {_layout(wider)}, "
            f"{_chips(plan, wider)}."
        )
    whole = plan.whole_rack
    sentences.append(
        f"The most this rack carries at those precisions: {_carries(whole)} sessions, as "
        f"{_layout(whole.base)}."
    )
    return [*sentences, _memory(best)]


def notes(plan: Plan) -> list[str]:
    """Return what a reader should know about the numbers."""
    ask = plan.ask
    num_meeting = sum(candidate.meets for candidate in plan.candidates)
    said = [
        f"{len(plan.candidates):,} layouts estimated, {num_meeting:,} meet the ask",
        "means over turns, in closed form; 'panjiu simulate' gives percentiles of one layout",
    ]
    if any(c.shape.parallelism.group_replicas > 1 for c in plan.candidates):
        said.append(
            "replicas that share experts wait for each other at every step; their busiest chip is "
            f"taken to have {EXPERT_IMBALANCE} times the mean chip's tokens"
        )
    trained = ask.model.trained_context_tokens
    if ask.load.session_tokens > trained:
        said.append(
            f"{ask.load.session_tokens:,} tokens are beyond the {trained:,} that "
            f"{ask.model.title} is trained for; planned as if it could serve them"
        )
    if ask.model.assumed:
        said.append(f"{ask.model.name}: {ask.model.source}")
    return said


def _robustness(plan: Plan) -> str:
    robust = plan.robust
    if robust is None:
        return "On the pessimistic machine no layout of those precisions meets the ask."
    if robust == plan.rows[0].base:
        return "It holds on the pessimistic machine too."
    return f"To hold on the pessimistic machine too: {_layout(robust)}, {_chips(plan, robust)}."


def _without_fp4(plan: Plan) -> Candidate | None:
    if plan.candidates[0].shape.precision is not Precision.FP4:
        return None
    return next(
        (c for c in plan.candidates if c.meets and c.shape.precision is not Precision.FP4), None
    )


def _why_not(plan: Plan) -> list[str]:
    ask, solo, nearest = plan.ask, plan.solo, plan.rows[0]
    sentences = ["Nothing meets the ask."]
    if solo.ttft_s > ask.slo.ttft_s:
        sentences.append(
            f"A TTFT of {quantities.seconds(ask.slo.ttft_s)} is out of reach: a resident session "
            f"alone on a replica gets {quantities.seconds(solo.ttft_s)} at best "
            f"({_shape(solo.ttft_shape)}), a cold prompt of {ask.load.context_tokens:,} tokens "
            f"{quantities.seconds(solo.cold_ttft_s)}. Ask for more time, or append less."
        )
    if solo.tpot_s > ask.slo.tpot_s:
        sentences.append(
            f"A TPOT of {quantities.seconds(ask.slo.tpot_s)} is out of reach: a session alone on a "
            f"replica gets {quantities.seconds(solo.tpot_s)} at best ({_shape(solo.tpot_shape)})."
        )
    carried = nearest.base.carries
    if len(sentences) == 1 and carried == 0:
        sentences.append(
            "Each SLO is within reach of a session alone on a replica, but not both on one layout."
        )
    if carried:
        sentences.append(_too_few(plan, nearest))
    return sentences


def _too_few(plan: Plan, nearest: PlanRow) -> str:
    load, base = plan.ask.load, nearest.base
    limits = {
        Limit.KV: "the KV of more would not fit",
        Limit.TTFT: "the TTFT of more would be too long",
        Limit.TPOT: "the TPOT of more would be too long",
    }
    pinned = plan.ask.num_replicas is not None or plan.ask.pins.tp is not None
    racks = math.ceil(load.sessions / base.carries)
    means = "Free --tp and --replicas" if pinned else f"Use {racks} such racks"
    return (
        f"The nearest, {_layout(base)}, carries {_carries(nearest)} of {load.sessions:,} sessions: "
        f"{limits[nearest.bottleneck.limit]}. {means}, or shorten the context."
    )


def _memory(row: PlanRow) -> str:
    parts = {name: size for name, size in row.memory_bytes.items() if size >= _SHOWN_BYTES}
    said = ", ".join(
        f"{_MEMORY[name]} {quantities.num_bytes(size)}" for name, size in parts.items()
    )
    return f"HBM a chip there: {said}. A replica holds {row.deployment.kv_tokens:,} tokens of KV."


def _carries(row: PlanRow) -> str:
    low, high = (
        row.bands[band].carries if band in row.bands else 0 for band in (Band.LOW, Band.HIGH)
    )
    base = row.base.carries
    return f"{base:,}" if low == base == high else f"{base:,} ({low:,} to {high:,})"


def _layout(candidate: Candidate) -> str:
    replicas = "replica" if candidate.num_replicas == 1 else "replicas"
    return f"{candidate.num_replicas} {replicas} x {_shape(candidate.shape)}"


def _shape(shape: Shape) -> str:
    return f"{shape.parallelism.describe()}, {shape.precision} weights, {shape.kv_precision} KV"


def _chips(plan: Plan, candidate: Candidate) -> str:
    return f"{candidate.num_chips} of {plan.ask.rack.num_chips.value:.0f} chips"
