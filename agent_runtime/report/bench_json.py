"""The stable JSON of a comparison; documented in docs/bench.md."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict

from agent_runtime.comparison.cell import MEASURES, CellResult
from agent_runtime.comparison.outcome import Outcome
from agent_runtime.comparison.statistics import Estimate, estimate, paired_ratio, verdict
from agent_runtime.report.bench_words import JUDGED, cautions
from scheduler.policies import POLICIES


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Frozen):
    """A mean over seeds with its 95 % interval; the ends are null for one seed."""

    mean: float
    low: float | None
    high: float | None


class Inputs(_Frozen):
    """What all runs have in common."""

    sessions: str
    num_sessions: int
    rack: str
    model: str
    band: str
    deployment: str
    num_replicas: int
    kv_tokens_per_replica: int
    host_kv_bytes_per_chip: float
    ttft_boundary: str
    slo_slowdown: float


class CapacityJson(_Frozen):
    """What load 1 is."""

    sessions_per_s: float
    compute_share: float
    room_share: float
    held_share: float
    alone_s: float


class PolicyJson(_Frozen):
    """A policy: whose it is, what it is set to, and whether it is a bound that knows the future."""

    source: str
    settings: str
    is_bound: bool


class SummaryJson(_Frozen):
    """A policy at a load, over its seeds. Measures that no run has are left out."""

    policy: str
    load: float
    seeds: list[int]
    measures: dict[str, Interval]
    to_baseline: dict[str, Interval]


class VerdictJson(_Frozen):
    """The baseline against the best of its rivals."""

    load: float
    measure: str
    rival: str
    ratio: Interval


class FailedJson(_Frozen):
    """A run that raised."""

    policy: str
    load: float
    seed: int
    error: str


class BenchJson(_Frozen):
    """A comparison."""

    format: Literal["panjiu-bench/1"]
    version: str
    complete: bool
    baseline: str
    inputs: Inputs
    capacity: CapacityJson
    policies: dict[str, PolicyJson]
    verdicts: list[VerdictJson]
    summary: list[SummaryJson]
    runs: list[CellResult]
    failed: list[FailedJson]
    notes: list[str]


def bench_json(outcome: Outcome) -> BenchJson:
    """Return a comparison as JSON has it; the same results give the same bytes."""
    bench = outcome.bench
    return BenchJson(
        format="panjiu-bench/1",
        version=version("panjiu"),
        complete=outcome.num_missing == 0,
        baseline=outcome.baseline,
        inputs=_inputs(outcome),
        capacity=CapacityJson(**asdict(bench.capacity)),
        policies={
            name: PolicyJson(
                source=POLICIES[name].source,
                settings=POLICIES[name].settings,
                is_bound=POLICIES[name].needs_future,
            )
            for name in outcome.policies
        },
        verdicts=_verdicts(outcome),
        summary=_summary(outcome),
        runs=list(outcome.results),
        failed=[FailedJson(**asdict(f.cell), error=f.error) for f in outcome.failed],
        notes=[*bench.workload.report_notes(), *cautions(outcome)],
    )


def _inputs(outcome: Outcome) -> Inputs:
    bench, deployment = outcome.bench, outcome.bench.deployment
    return Inputs(
        sessions=bench.workload.name,
        num_sessions=bench.num_sessions or len(bench.workload.sessions),
        rack=deployment.rack.name,
        model=deployment.model.name,
        band=bench.band.value,
        deployment=deployment.describe(),
        num_replicas=deployment.num_replicas,
        kv_tokens_per_replica=deployment.kv_tokens,
        host_kv_bytes_per_chip=bench.host_bytes_per_chip,
        ttft_boundary=bench.ttft_boundary.value,
        slo_slowdown=bench.slo_slowdown,
    )


def _verdicts(outcome: Outcome) -> list[VerdictJson]:
    found = [
        verdict(outcome.results, outcome.baseline, load, measure)
        for load in outcome.loads
        for measure, _ in JUDGED
    ]
    return [
        VerdictJson(load=v.load, measure=v.measure, rival=v.rival, ratio=_interval(v.ratio))
        for v in found
        if v is not None
    ]


def _summary(outcome: Outcome) -> list[SummaryJson]:
    results = outcome.results
    done = dict.fromkeys((result.load, result.policy) for result in results)
    return [
        SummaryJson(
            policy=policy,
            load=load,
            seeds=sorted(r.seed for r in results if (r.load, r.policy) == (load, policy)),
            measures=_intervals(
                {measure: estimate(results, policy, load, measure) for measure in MEASURES}
            ),
            to_baseline=_intervals(
                {
                    measure: paired_ratio(results, policy, outcome.baseline, load, measure)
                    for measure in MEASURES
                }
            ),
        )
        for load, policy in sorted(done)
    ]


def _intervals(estimates: dict[str, Estimate | None]) -> dict[str, Interval]:
    return {name: _interval(found) for name, found in estimates.items() if found is not None}


def _interval(found: Estimate) -> Interval:
    return Interval(mean=found.mean, low=found.low, high=found.high)
