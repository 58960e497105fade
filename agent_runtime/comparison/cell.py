"""One run of a comparison: a policy at a load with a seed, and what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel, ConfigDict

from agent_runtime.comparison.capacity import Capacity
from agent_runtime.comparison.offered_load import offered
from agent_runtime.measurement.summary import FloatArray
from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.session_script import Workload
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.step_scheduler import EngineLimits


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
    """

    workload: Workload
    deployment: Deployment
    capacity: Capacity
    band: Band
    num_sessions: int | None = None
    host_bytes_per_chip: float = 0.0
    slo_slowdown: float = 5.0
    limits: EngineLimits = field(default_factory=EngineLimits)


class CellResult(BaseModel):
    """What one run measured; docs/bench.md defines every field."""

    model_config = ConfigDict(frozen=True)

    policy: str
    load: float
    seed: int
    sessions: int
    failed_sessions: int
    turns: int
    simulated_s: float
    jct_mean_s: float
    jct_p50_s: float
    jct_p95_s: float
    jct_p99_s: float
    jct_max_s: float
    ttft_mean_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    slowdown_mean: float
    slowdown_p99: float
    slowdown_max: float
    jain_slowdown: float
    sessions_per_h: float
    turns_per_s: float
    goodput_per_h: float
    hit_ratio: float
    recomputed_tokens: int
    preemptions: int
    pulled_bytes: float
    host_loaded_bytes: float
    idle_kv_byte_s: float
    busy_ratio: float
    pauses: int
    longest_held_s: float


def run_cell(bench: Bench, cell: Cell) -> CellResult:
    """Run one cell."""
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
    )
    simulation = RackSimulation(workload, bench.deployment, options)
    simulation.run()
    return _measured(bench, cell, simulation)


def _measured(bench: Bench, cell: Cell, simulation: RackSimulation) -> CellResult:
    deployment, log = bench.deployment, simulation.log
    stats = [engine.stats() for engine in simulation.engines]
    jct, slowdown, ttft = log.jct_s, log.slowdown, log.ttft_s
    hours = simulation.now_s / 3600
    block = deployment.block_size_tokens
    token_bytes = deployment.kv_bytes_per_token * deployment.parallelism.num_chips
    used_token_s = sum(s.kv_used_block_s for s in stats) * block
    return CellResult(
        policy=cell.policy,
        load=cell.load,
        seed=cell.seed,
        sessions=len(jct),
        failed_sessions=simulation.num_failed_sessions,
        turns=log.num_turns,
        simulated_s=simulation.now_s,
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
        sessions_per_h=len(jct) / hours,
        turns_per_s=log.num_turns / simulation.now_s,
        goodput_per_h=float((slowdown <= bench.slo_slowdown).sum()) / hours,
        hit_ratio=sum(s.num_cached_tokens for s in stats)
        / max(1, sum(s.num_prompt_tokens for s in stats)),
        recomputed_tokens=log.num_recomputed_tokens + sum(s.num_recomputed_tokens for s in stats),
        preemptions=sum(s.num_preemptions for s in stats),
        pulled_bytes=token_bytes
        * block
        * sum(engine.residency.num_pulled_blocks for engine in simulation.engines),
        host_loaded_bytes=token_bytes
        * block
        * sum(engine.residency.num_loaded_blocks for engine in simulation.engines),
        idle_kv_byte_s=max(0.0, used_token_s - simulation.held.active_token_s) * token_bytes,
        busy_ratio=sum(s.busy_s for s in stats) / len(stats) / simulation.now_s,
        pauses=simulation.held.num_pauses,
        longest_held_s=simulation.held.longest_s,
    )


def jain_index(values: FloatArray | Sequence[float]) -> float:
    """Return Jain's fairness index, 1 where all are equal; 1 for none.

    Source: Jain, Chiu and Hawe 1984: ``(sum x)^2 / (n sum x^2)``.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        return 1.0
    return float(array.sum() ** 2 / (array.size * (array**2).sum()))


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else 0.0


def _quantile(values: FloatArray, percent: float) -> float:
    return float(np.percentile(values, percent)) if values.size else 0.0
