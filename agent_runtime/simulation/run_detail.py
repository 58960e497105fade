"""A simulation from its inputs to its ``RunDetail``."""

from __future__ import annotations

from collections.abc import Callable

from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.simulation.summary import (
    Distribution,
    ReplicaStats,
    RunDetail,
    RunSummary,
    SessionCounts,
    Slowdown,
    UsedRatio,
)
from agent_runtime.workload.session_script import Workload
from hw_model.deployment import Deployment


def simulate(
    workload: Workload,
    deployment: Deployment,
    options: SimulationOptions,
    *,
    stopwatch: Callable[[], float],
    on_turn: Callable[[int], None] | None = None,
) -> RunDetail:
    """Run ``workload`` on ``deployment`` and measure it.

    Args:
        workload: The sessions.
        deployment: What serves them; laid out for ``options.band``.
        options: Band, policy, seed and limits.
        stopwatch: Wall seconds from any origin; only ``wall_s`` and ``turns_per_wall_s`` use it.
        on_turn: Called after every turn with the number of turns ended so far.

    Returns:
        The same detail for the same inputs, but for those two.
    """
    began_s = stopwatch()
    simulation = RackSimulation(workload, deployment, options)
    simulation.run(on_turn)
    wall_s = stopwatch() - began_s
    return RunDetail(
        summary=_summary(simulation, workload, deployment, options, wall_s),
        ttft_s=simulation.log.ttft_s,
        tpot_s=simulation.log.tpot_s,
        jct_s=simulation.log.jct_s,
        timeline=simulation.sampler.timeline(),
        replicas=_replicas(simulation, deployment),
        deployment=deployment.describe(),
        notes=_notes(simulation, workload, deployment),
    )


def _summary(
    simulation: RackSimulation,
    workload: Workload,
    deployment: Deployment,
    options: SimulationOptions,
    wall_s: float,
) -> RunSummary:
    log = simulation.log
    stats = [engine.stats() for engine in simulation.engines]
    slowdown = Distribution.of(log.slowdown)
    num_prompt_tokens = sum(s.num_prompt_tokens for s in stats)
    block_s = deployment.kv_blocks * deployment.num_replicas * simulation.now_s
    return RunSummary(
        policy=options.policy,
        model=deployment.model.name,
        rack=deployment.rack.name,
        band=options.band.value,
        seed=options.seed,
        ttft_boundary=options.ttft_boundary.value,
        sessions=SessionCounts(
            total=len(workload.sessions),
            completed=len(log.jct_s),
            failed=simulation.num_failed_sessions,
        ),
        turns=log.num_turns,
        simulated_s=simulation.now_s,
        wall_s=wall_s,
        turns_per_wall_s=log.num_turns / wall_s if wall_s > 0 else 0.0,
        jct_s=Distribution.of(log.jct_s),
        ttft_s=Distribution.of(log.ttft_s),
        tpot_s=Distribution.of(log.tpot_s),
        slowdown=Slowdown(mean=slowdown.mean, p99=slowdown.p99, max=slowdown.max),
        prefix_hit_ratio=_ratio(sum(s.num_cached_tokens for s in stats), num_prompt_tokens),
        recomputed_tokens=log.num_recomputed_tokens + sum(s.num_recomputed_tokens for s in stats),
        preemptions=sum(s.num_preemptions for s in stats),
        host_loaded_tokens=deployment.block_size_tokens
        * sum(engine.residency.num_loaded_blocks for engine in simulation.engines),
        pulled_bytes=0,  # no policy moves KV between replicas yet
        hbm_used_ratio=UsedRatio(
            mean=_ratio(sum(s.kv_used_block_s for s in stats), block_s),
            max=max(s.kv_used_peak_blocks for s in stats) / deployment.kv_blocks,
        ),
    )


def _replicas(simulation: RackSimulation, deployment: Deployment) -> tuple[ReplicaStats, ...]:
    return tuple(
        ReplicaStats(
            replica_id=replica,
            turns=simulation.num_turns_by_replica[replica],
            busy_ratio=_ratio(stats.busy_s, simulation.now_s),
            prefix_hit_ratio=_ratio(stats.num_cached_tokens, stats.num_prompt_tokens),
            kv_used_ratio=_ratio(stats.kv_used_block_s, deployment.kv_blocks * simulation.now_s),
        )
        for replica, stats in enumerate(engine.stats() for engine in simulation.engines)
    )


def _notes(
    simulation: RackSimulation, workload: Workload, deployment: Deployment
) -> tuple[str, ...]:
    notes = []
    if simulation.refused:
        longest = max(refusal.num_tokens for _, refusal in simulation.refused)
        notes.append(
            f"{simulation.num_failed_sessions} sessions failed: {len(simulation.refused)} turns "
            f"were refused for their context (up to {longest:,} tokens); a replica holds "
            f"{deployment.kv_tokens:,}. A larger TP, or FP8 KV, would hold more."
        )
    trained = deployment.model.trained_context_tokens
    beyond = sum(script.peak_context_tokens() > trained for script in workload.sessions)
    if beyond:
        notes.append(
            f"{beyond} of {len(workload.sessions)} sessions grow beyond the {trained:,} tokens "
            f"that {deployment.model.title} is trained for; they run as if it could serve them."
        )
    return tuple(notes)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
