"""One run of a comparison: a policy at a load with a seed, and what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from agent_runtime.comparison.capacity import Capacity
from agent_runtime.comparison.offered_load import offered
from agent_runtime.errors import InternalError
from agent_runtime.measurement.summary import FloatArray
from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.session_script import Workload
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.ttft_boundary import TtftBoundary


@dataclass(frozen=True, slots=True)
class Cell:
    """What is run."""

    policy: str
    load: float
    seed: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What all cells of a comparison have in common.

    Attributes:
        workload: Sessions to draw from.
        deployment: What serves them.
        capacity: Of that, for them.
        band: Which machine within what is known.
        num_sessions: How many come in a run; None for each of the workload once.
        host_bytes_per_chip: Host memory for KV.
        slo_slowdown: A session is good if its slowdown is no more.
        limits: Of every engine.
        ttft_boundary: Whose clock turns are timed on.
    """

    workload: Workload
    deployment: Deployment
    capacity: Capacity
    band: Band
    num_sessions: int | None = None
    host_bytes_per_chip: float = 0.0
    slo_slowdown: float = 5.0
    limits: EngineLimits = field(default_factory=EngineLimits)
    ttft_boundary: TtftBoundary = TtftBoundary.CLIENT


class CellResult(BaseModel):
    """What one run measured; docs/bench.md defines every field.

    A measure of sessions or turns is None where there are none.
    """

    model_config = ConfigDict(frozen=True)

    policy: str
    load: float
    seed: int
    sessions: int
    failed_sessions: int
    turns: int
    simulated_s: float
    jct_mean_s: float | None
    jct_p50_s: float | None
    jct_p95_s: float | None
    jct_p99_s: float | None
    jct_max_s: float | None
    ttft_mean_s: float | None
    ttft_p99_s: float | None
    tpot_mean_s: float | None
    slowdown_mean: float | None
    slowdown_p99: float | None
    slowdown_max: float | None
    jain_slowdown: float | None
    sessions_per_h: float
    turns_per_s: float
    good_ratio: float
    goodput_per_h: float
    hit_ratio: float
    recomputed_tokens: int
    preemptions: int
    pulled_bytes: float
    pulled_bytes_per_s: float
    host_loaded_bytes: float
    host_loaded_bytes_per_s: float
    idle_kv_byte_s: float
    busy_ratio: float
    pauses: int
    longest_held_s: float


MEASURES = tuple(name for name in CellResult.model_fields if name not in {"policy", "load", "seed"})
"""The fields that are measured."""


def run_cell(bench: Bench, cell: Cell) -> CellResult:
    """Run one cell.

    Raises:
        InternalError: The policy held turns for ever, so that sessions never ended.
    """
    workload = offered(
        bench.workload,
        bench.capacity,
        load=cell.load,
        num_sessions=bench.num_sessions,
        seed=cell.seed,
    )
    options = SimulationOptions(
        band=bench.band,
        policy=cell.policy,
        seed=cell.seed,
        limits=bench.limits,
        host_bytes_per_chip=bench.host_bytes_per_chip,
        ttft_boundary=bench.ttft_boundary,
    )
    simulation = RackSimulation(workload, bench.deployment, options)
    simulation.run()
    num_ended = len(simulation.log.jct_s) + simulation.num_failed_sessions
    if num_ended < len(workload.sessions):
        raise InternalError(
            f"{len(workload.sessions) - num_ended} of {len(workload.sessions)} sessions never "
            f"ended: {cell.policy} holds turns and does not ask to be woken"
        )
    return _measured(bench, cell, simulation)


def _measured(bench: Bench, cell: Cell, simulation: RackSimulation) -> CellResult:
    log = simulation.log
    jct, slowdown, ttft = log.jct_s, log.slowdown, log.ttft_s
    num_sessions = len(jct) + simulation.num_failed_sessions
    num_good = int((slowdown <= bench.slo_slowdown).sum())
    span_s = simulation.last_ended_s  # the first session comes at 0
    return CellResult(
        policy=cell.policy,
        load=cell.load,
        seed=cell.seed,
        sessions=len(jct),
        failed_sessions=simulation.num_failed_sessions,
        turns=log.num_turns,
        simulated_s=span_s,
        jct_mean_s=_mean(jct),
        jct_p50_s=_quantile(jct, 50),
        jct_p95_s=_quantile(jct, 95),
        jct_p99_s=_quantile(jct, 99),
        jct_max_s=_quantile(jct, 100),
        ttft_mean_s=_mean(ttft),
        ttft_p99_s=_quantile(ttft, 99),
        tpot_mean_s=_mean(log.tpot_s),
        slowdown_mean=_mean(slowdown),
        slowdown_p99=_quantile(slowdown, 99),
        slowdown_max=_quantile(slowdown, 100),
        jain_slowdown=jain_index(slowdown),
        sessions_per_h=_ratio(3600 * len(jct), span_s),
        turns_per_s=_ratio(log.num_turns, span_s),
        good_ratio=_ratio(num_good, num_sessions),
        goodput_per_h=_ratio(3600 * num_good, span_s),
        pauses=simulation.held.num_pauses,
        longest_held_s=simulation.held.longest_s,
        **_of_engines(bench.deployment, simulation, span_s),
    )


def _of_engines(
    deployment: Deployment, simulation: RackSimulation, span_s: float
) -> dict[str, Any]:
    """Return what the engines counted, by the fields of ``CellResult``."""
    stats = [engine.stats() for engine in simulation.engines]
    residencies = [engine.residency for engine in simulation.engines]
    # A token's KV on all chips of its replica.
    token_bytes = deployment.kv_bytes_per_token * deployment.parallelism.num_chips
    block_bytes = token_bytes * deployment.block_size_tokens
    pulled_bytes = block_bytes * sum(r.num_pulled_blocks for r in residencies)
    loaded_bytes = block_bytes * sum(r.num_loaded_blocks for r in residencies)
    num_recomputed = sum(s.num_recomputed_tokens for s in stats)
    return {
        "hit_ratio": _ratio(
            sum(s.num_cached_tokens for s in stats), sum(s.num_prompt_tokens for s in stats)
        ),
        "recomputed_tokens": simulation.log.num_recomputed_tokens + num_recomputed,
        "preemptions": sum(s.num_preemptions for s in stats),
        "pulled_bytes": pulled_bytes,
        "pulled_bytes_per_s": _ratio(pulled_bytes, span_s),
        "host_loaded_bytes": loaded_bytes,
        "host_loaded_bytes_per_s": _ratio(loaded_bytes, span_s),
        "idle_kv_byte_s": block_bytes * sum(s.kv_used_block_s - s.kv_active_block_s for s in stats),
        "busy_ratio": _ratio(sum(s.busy_s for s in stats) / len(stats), span_s),
    }


def jain_index(values: FloatArray | Sequence[float]) -> float | None:
    """Return Jain's fairness index, 1 where all are equal and 1/n where one has all.

    Source: Jain, Chiu and Hawe 1984: ``(sum x)^2 / (n sum x^2)``. None of nobody.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        return None
    return float(array.sum() ** 2 / (array.size * (array**2).sum()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if values.size else None


def _quantile(values: FloatArray, percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values.size else None
