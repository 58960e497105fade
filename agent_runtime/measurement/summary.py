"""What a run says of itself: the JSON of ``panjiu simulate`` and ``run``, and what is behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FloatArray = NDArray[np.float64]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Distribution(_Frozen):
    """Seconds over a set of turns or sessions; all None when the set is empty."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: FloatArray) -> Distribution:
        """Summarise ``values`` [n]; percentiles are linearly interpolated."""
        if values.size == 0:
            return cls(mean=None, p50=None, p95=None, p99=None, max=None)
        p50, p95, p99 = (float(q) for q in np.percentile(values, (50, 95, 99)))
        return cls(mean=float(values.mean()), p50=p50, p95=p95, p99=p99, max=float(values.max()))


class Slowdown(_Frozen):
    """Time in model calls over the time the same calls take alone on an idle, warm replica."""

    mean: float | None
    p99: float | None
    max: float | None


class SessionCounts(_Frozen):
    """Top-level sessions; a failed one was refused or had a sub-agent refused."""

    total: int
    completed: int
    failed: int


class UsedRatio(_Frozen):
    """Share of KV blocks holding KV (in use or cached): over time and replicas, and the fullest."""

    mean: float
    max: float


@dataclass(frozen=True, slots=True)
class RunLabels:
    """What was run, as a report names it."""

    policy: str
    band: str
    seed: int
    ttft_boundary: str


class RunSummary(_Frozen):
    """The stable JSON of one run; documented in docs/simulate.md.

    Only ``wall_s`` and ``turns_per_wall_s`` depend on the machine that simulated.
    """

    policy: str
    model: str
    rack: str
    band: str
    seed: int
    ttft_boundary: str
    sessions: SessionCounts
    turns: int
    simulated_s: float
    wall_s: float
    turns_per_wall_s: float
    jct_s: Distribution
    ttft_s: Distribution
    tpot_s: Distribution
    slowdown: Slowdown
    prefix_hit_ratio: float
    recomputed_tokens: int
    preemptions: int
    pulled_bytes: int
    host_loaded_tokens: int
    hbm_used_ratio: UsedRatio


@dataclass(frozen=True, slots=True)
class Timeline:
    """Samples of the whole rack, all arrays of one length, at rising simulated times.

    Attributes:
        time_s: When.
        kv_used_ratio: Mean over replicas of the share of KV blocks that hold KV.
        kv_active_ratio: The same, counting only blocks that running turns hold.
        running_turns: Turns inside engines (waiting or running).
        live_sessions: Sessions that have begun and not ended, sub-agents included.
    """

    time_s: FloatArray
    kv_used_ratio: FloatArray
    kv_active_ratio: FloatArray
    running_turns: FloatArray
    live_sessions: FloatArray


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """One replica's run."""

    replica_id: int
    turns: int
    busy_ratio: float
    prefix_hit_ratio: float
    kv_used_ratio: float


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run's summary and what a report draws beside it.

    Attributes:
        ttft_s, tpot_s: One value a turn (TPOT only of turns with two tokens or more).
        jct_s: One value a completed session.
        deployment: One line a person can read: replicas, TP, precision, KV tokens.
        notes: What a reader should know: refused sessions, contexts beyond the trained length, ...
    """

    summary: RunSummary
    ttft_s: FloatArray
    tpot_s: FloatArray
    jct_s: FloatArray
    timeline: Timeline
    replicas: tuple[ReplicaStats, ...]
    deployment: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number about the hardware that a result rests on, as a report shows it.

    Attributes:
        name: e.g. ``HBM bandwidth``.
        low, base, high: The band, already in display units.
        unit: e.g. ``TB/s``.
        source: Where it comes from.
        trust: measured, vendor, source_code, press, inferred or assumed.
    """

    name: str
    low: str
    base: str
    high: str
    unit: str
    source: str
    trust: str
