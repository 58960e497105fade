"""From what a run leaves behind to its ``RunDetail``; discrete-event or live, it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.measurement.summary import (
    Distribution,
    ReplicaStats,
    RunDetail,
    RunLabels,
    RunSummary,
    SessionCounts,
    Slowdown,
    Timeline,
    UsedRatio,
)
from agent_runtime.measurement.turn_log import TurnLog
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run that is over.

    Attributes:
        labels: What was run, as a report names it.
        deployment: What served it.
        engines: One a replica, settled at ``ended_s``.
        log: Its turns and sessions.
        timeline: Samples of the rack.
        num_turns_by_replica: Turns dispatched to each.
        ended_s: When, in emulated seconds from the start.
        sessions: How many, and how they ended.
        refused_tokens: Prompt and output of each turn that no replica holds.
        num_sessions_beyond_trained: Sessions that grew beyond the model's trained context.
    """

    labels: RunLabels
    deployment: Deployment
    engines: Sequence[EngineCore]
    log: TurnLog
    timeline: Timeline
    num_turns_by_replica: Sequence[int]
    ended_s: float
    sessions: SessionCounts
    refused_tokens: Sequence[int]
    num_sessions_beyond_trained: int


def run_detail(record: RunRecord, wall_s: float) -> RunDetail:
    """Return the detail of a run that took ``wall_s`` seconds of the machine's."""
    return RunDetail(
        summary=_summary(record, wall_s),
        ttft_s=record.log.ttft_s,
        tpot_s=record.log.tpot_s,
        jct_s=record.log.jct_s,
        timeline=record.timeline,
        replicas=_replicas(record),
        deployment=record.deployment.describe(),
        notes=_notes(record),
    )


def _summary(record: RunRecord, wall_s: float) -> RunSummary:
    log, deployment = record.log, record.deployment
    stats = [engine.stats() for engine in record.engines]
    slowdown = Distribution.of(log.slowdown)
    num_prompt_tokens = sum(s.num_prompt_tokens for s in stats)
    block_s = deployment.kv_blocks * deployment.num_replicas * record.ended_s
    return RunSummary(
        policy=record.labels.policy,
        model=deployment.model.name,
        rack=deployment.rack.name,
        band=record.labels.band,
        seed=record.labels.seed,
        ttft_boundary=record.labels.ttft_boundary,
        sessions=record.sessions,
        turns=log.num_turns,
        simulated_s=record.ended_s,
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
        * sum(engine.residency.num_loaded_blocks for engine in record.engines),
        pulled_bytes=round(
            deployment.kv_bytes_per_token
            * deployment.parallelism.num_chips
            * deployment.block_size_tokens
            * sum(engine.residency.num_pulled_blocks for engine in record.engines)
        ),
        hbm_used_ratio=UsedRatio(
            mean=_ratio(sum(s.kv_used_block_s for s in stats), block_s),
            max=max(s.kv_used_peak_blocks for s in stats) / deployment.kv_blocks,
        ),
    )


def _replicas(record: RunRecord) -> tuple[ReplicaStats, ...]:
    capacity_block_s = record.deployment.kv_blocks * record.ended_s
    return tuple(
        ReplicaStats(
            replica_id=replica,
            turns=record.num_turns_by_replica[replica],
            busy_ratio=_ratio(stats.busy_s, record.ended_s),
            prefix_hit_ratio=_ratio(stats.num_cached_tokens, stats.num_prompt_tokens),
            kv_used_ratio=_ratio(stats.kv_used_block_s, capacity_block_s),
        )
        for replica, stats in enumerate(engine.stats() for engine in record.engines)
    )


def _notes(record: RunRecord) -> tuple[str, ...]:
    notes, deployment = [], record.deployment
    if record.refused_tokens:
        notes.append(
            f"{record.sessions.failed} sessions failed: {len(record.refused_tokens)} turns "
            f"were refused for their context (up to {max(record.refused_tokens):,} tokens); a "
            f"replica holds {deployment.kv_tokens:,}. A larger TP, or FP8 KV, would hold more."
        )
    beyond = record.num_sessions_beyond_trained
    if beyond:
        notes.append(
            f"{beyond} of {record.sessions.total} sessions grow beyond the "
            f"{deployment.model.trained_context_tokens:,} tokens that {deployment.model.title} is "
            "trained for; they run as if it could serve them."
        )
    return tuple(notes)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
