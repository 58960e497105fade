"""The stable JSON of ``panjiu plan``; documented in docs/plan.md."""

from __future__ import annotations

from typing import Any

from hw_model.capacity_plan import Plan, PlanRow
from hw_model.layout_shapes import Shape
from hw_model.plan_advice import Relief
from hw_model.planner import Candidate


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values."""
    ask, solo = plan.ask, plan.solo
    load = ask.load
    return {
        "model": ask.model.name,
        "rack": ask.rack.name,
        "ask": {
            "sessions": load.sessions,
            "context_tokens": load.context_tokens,
            "append_tokens": load.append_tokens,
            "output_tokens": load.output_tokens,
            "tool_gap_mean_s": load.gap.mean_s,
            "slo_ttft_s": ask.slo.ttft_s,
            "slo_tpot_s": ask.slo.tpot_s,
            "ttft_boundary": ask.ttft_boundary.value,
        },
        "meets": plan.meets,
        "num_candidates": len(plan.candidates),
        "num_meeting": sum(candidate.meets for candidate in plan.candidates),
        "layouts": [_row(row) for row in plan.rows],
        "robust": None if plan.robust is None else _layout(plan.robust),
        "whole_rack": _row(plan.whole_rack),
        "solo": {
            "ttft_s": solo.ttft_s,
            "ttft_layout": _shape(solo.ttft_shape),
            "tpot_s": solo.tpot_s,
            "tpot_layout": _shape(solo.tpot_shape),
            "cold_ttft_s": solo.cold_ttft_s,
        },
    }


def _row(row: PlanRow) -> dict[str, Any]:
    return {
        **_layout(row.base),
        "kv_tokens_per_replica": row.deployment.kv_tokens,
        "memory_bytes_per_chip": row.memory_bytes,
        "bands": {band.value: _metrics(candidate) for band, candidate in row.bands.items()},
        "bottleneck": {
            "limit": row.bottleneck.limit.value,
            "resource": None if row.bottleneck.resource is None else row.bottleneck.resource.value,
            "share": row.bottleneck.share,
        },
        "relief": None if row.relief is None else _relief(row.relief),
    }


def _metrics(candidate: Candidate) -> dict[str, Any]:
    estimate = candidate.estimate
    return {
        "meets": candidate.meets,
        "ttft_s": estimate.ttft_s,
        "tpot_s": estimate.tpot_s,
        "turns_per_s": estimate.turns_per_s * candidate.num_replicas,
        "resident_sessions": candidate.resident_sessions,
        "carries_sessions": candidate.carries,
        "busy_ratio": estimate.busy_share,
        "decoding_sessions_per_replica": estimate.decoding_sessions,
        "prefix_miss_ratio": estimate.miss_share,
    }


def _relief(relief: Relief) -> dict[str, Any]:
    return {
        "change": relief.change,
        **_shape(relief.shape),
        "replicas": relief.num_replicas,
        "chips": relief.num_chips,
        "carries_sessions": relief.sessions,
    }


def _layout(candidate: Candidate) -> dict[str, Any]:
    return {
        **_shape(candidate.shape),
        "replicas": candidate.num_replicas,
        "chips": candidate.num_chips,
        "sessions_per_replica": candidate.sessions,
    }


def _shape(shape: Shape) -> dict[str, Any]:
    return {
        "tp": shape.parallelism.tp,
        "pp": shape.parallelism.pp,
        "ep": shape.parallelism.ep,
        "precision": shape.precision.value,
        "kv_precision": shape.kv_precision.value,
    }
