"""Why a layout is not better, and what would make it so: every answer is computed, none is a rule.

A bottleneck is found by making one resource twice as fast and estimating again; a relief is a
neighbouring layout that was estimated and found better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from hw_model.claim import Band, Claim
from hw_model.deployment import Deployment
from hw_model.layout_shapes import KV_PRECISIONS, Shape
from hw_model.parallelism import Parallelism, ep_degrees
from hw_model.planner import Candidate, Planner
from hw_model.specs import ChipSpec, RackSpec
from hw_model.step_table import StepTable
from hw_model.step_time import StepTimeModel

_WORTH_IT = 1.05
"""A relief carries at least so many times the sessions, or takes so many times less time."""


class Limit(StrEnum):
    """What keeps a layout from carrying more sessions, or from carrying these."""

    KV = "kv"
    TTFT = "ttft"
    TPOT = "tpot"


class Resource(StrEnum):
    """What time is spent on; ``PREFILL`` is compute that a step of decodes alone does not wait for.

    Prefill shares steps with decodes, so it may be what TPOT is spent on.
    """

    PREFILL = "prefill compute"
    COMPUTE = "compute"
    HBM_BANDWIDTH = "HBM bandwidth"
    COLLECTIVES = "collectives"
    OVERHEADS = "overheads"


_RESOURCES: tuple[Resource, ...] = tuple(
    resource for resource in Resource if resource is not Resource.PREFILL
)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What holds a layout back.

    Attributes:
        limit: What breaks first as sessions are added.
        resource: Where most of that time goes; None for KV, which is room and not time.
        share: Part of the time that resource takes: twice what doubling its speed saves.
    """

    limit: Limit
    resource: Resource | None
    share: float

    def describe(self) -> str:
        """Return it in a few words."""
        if self.resource is None:
            return "KV room"
        return f"{self.limit.upper()}: {self.resource} {self.share:.0%}"


@dataclass(frozen=True, slots=True)
class Relief:
    """A neighbouring layout that is better, as estimated.

    Attributes:
        change: What is different.
        sessions: That it carries within the SLOs.
        sessions_now: That the layout at hand carries.
        num_chips: That it takes.
        limit_s: Its TTFT or TPOT where no session at all is within the SLOs, else None.
        limit_now_s: The same of the layout at hand.
    """

    change: str
    shape: Shape
    num_replicas: int
    sessions: int
    sessions_now: int
    limit_s: float | None = None
    limit_now_s: float | None = None

    @property
    def num_chips(self) -> int:
        """Chips it takes."""
        return self.shape.parallelism.num_chips * self.num_replicas


def find_bottleneck(planner: Planner, candidate: Candidate) -> Bottleneck:
    """Return what holds ``candidate`` back at band base, at the load where it does."""
    sessions = planner.capacity(candidate.shape, 1) + 1
    limit = _limit(planner, candidate, sessions)
    if limit is Limit.KV:
        return Bottleneck(limit, None, 1.0)
    deployment = planner.laid_out(candidate.shape)

    def seconds(resource: Resource | None) -> float:
        faster = deployment if resource is None else _twice_as_fast(deployment, resource)
        estimate = planner.estimate_on(faster, sessions, Band.BASE)
        return estimate.ttft_s if limit is Limit.TTFT else estimate.tpot_s

    now_s = seconds(None)
    shares = {resource: 2 * (1 - seconds(resource) / now_s) for resource in _RESOURCES}
    largest: Resource = max(shares, key=lambda resource: shares[resource])
    share = min(1.0, shares[largest])
    if largest is Resource.COMPUTE and not _decode_is_compute_bound(planner, candidate, sessions):
        largest = Resource.PREFILL
    return Bottleneck(limit, largest, share)


def find_relief(planner: Planner, candidate: Candidate) -> Relief | None:
    """Return the neighbour that helps most, those on no more chips first; None if none does.

    Neighbours outside the ask's pins are considered: a pin may be what hurts.
    """
    now = planner.capacity(candidate.shape, candidate.num_replicas)
    options = [
        Relief(change, shape, replicas, planner.capacity(shape, replicas), now)
        for change, shape, replicas in _neighbours(planner, candidate)
    ]
    helping = [option for option in options if option.sessions >= _WORTH_IT * max(now, 1)]
    if helping:
        return max(
            helping, key=lambda o: (o.num_chips <= candidate.num_chips, o.sessions, -o.num_chips)
        )
    return None if now else _faster_neighbour(planner, candidate)


def _limit(planner: Planner, candidate: Candidate, sessions: int) -> Limit:
    """Return what breaks with so many sessions a replica, one more than it carries."""
    slo, load = planner.ask.slo, planner.ask.load
    kv_tokens = planner.laid_out(candidate.shape).kv_tokens
    if sessions * load.session_tokens > kv_tokens:
        return Limit.KV
    estimate = planner.estimate(candidate.shape, sessions) or candidate.estimate
    if estimate.ttft_s / slo.ttft_s > estimate.tpot_s / slo.tpot_s:
        return Limit.TTFT
    return Limit.TPOT


def _decode_is_compute_bound(planner: Planner, candidate: Candidate, sessions: int) -> bool:
    """Tell whether a step of decodes alone would be shorter with twice the compute."""
    deployment = planner.laid_out(candidate.shape)
    load, limits = planner.ask.load, planner.ask.limits
    estimate = planner.estimate(candidate.shape, sessions) or candidate.estimate
    decoding = max(1.0, estimate.decoding_sessions)

    def decode_s(some: Deployment) -> float:
        step_time = StepTimeModel(some, Band.BASE)
        return StepTable(step_time, load, limits, some.block_size_tokens).decode_s(decoding)

    return decode_s(_twice_as_fast(deployment, Resource.COMPUTE)) * _WORTH_IT < decode_s(deployment)


def _neighbours(planner: Planner, candidate: Candidate) -> Iterator[tuple[str, Shape, int]]:
    """Yield what differs in one respect: a degree on the same chips, a precision, more chips."""
    shape, replicas = candidate.shape, candidate.num_replicas
    spread, chips = shape.parallelism, int(planner.ask.rack.num_chips.value)
    for other in _neighbouring_spreads(planner, spread):
        same = candidate.num_chips // (other.num_chips * other.group_replicas)
        if same:
            yield (
                _change(spread, other),
                shape._replace(parallelism=other),
                same * other.group_replicas,
            )
    for kv_precision in KV_PRECISIONS:
        if kv_precision.num_bytes < shape.kv_precision.num_bytes:
            yield f"{kv_precision} KV", shape._replace(kv_precision=kv_precision), replicas
    for precision in planner.ask.chip.precisions():
        if precision.num_bytes < shape.precision.num_bytes:
            yield f"{precision} weights", shape._replace(precision=precision), replicas
    most = chips // (spread.num_chips * spread.group_replicas) * spread.group_replicas
    more = min(2 * replicas, most)
    if more > replicas:
        yield f"{more} replicas", shape, more
    wider = _with_tp(spread, spread.tp * 2)
    if wider.num_chips * replicas <= chips and replicas % wider.group_replicas == 0:
        yield _change(spread, wider), shape._replace(parallelism=wider), replicas


def _neighbouring_spreads(planner: Planner, spread: Parallelism) -> Iterator[Parallelism]:
    rack = planner.ask.rack
    domain = int(min(rack.domain_chips.value, rack.num_chips.value))
    yield _with_tp(spread, spread.tp * 2)
    if spread.tp > 1:
        yield _with_tp(spread, spread.tp // 2)
    if spread.ep <= spread.tp:
        yield spread._replace(pp=spread.pp * 2)
    if spread.pp > 1:
        yield spread._replace(pp=spread.pp // 2)
    else:
        for ep in [1, *ep_degrees(planner.ask.model, spread.tp, domain)]:
            if ep != spread.ep:
                yield spread._replace(ep=ep)


def _with_tp(spread: Parallelism, tp: int) -> Parallelism:
    """Change TP; experts that are whole inside a TP group stay so."""
    ep = tp if spread.ep == spread.tp > 1 or 1 < spread.ep < tp else spread.ep
    return spread._replace(tp=tp, ep=ep)


def _change(spread: Parallelism, other: Parallelism) -> str:
    """Name the degree that differs."""
    if other.tp != spread.tp:
        return f"TP{other.tp}"
    if other.pp != spread.pp:
        return f"PP{other.pp}"
    return f"EP{other.ep}" if other.ep > 1 else "no EP"


def _faster_neighbour(planner: Planner, candidate: Candidate) -> Relief | None:
    """Return the neighbour nearest to the SLO that not even one session is within."""
    is_ttft = _limit(planner, candidate, 1) is not Limit.TPOT

    def limit_s(other: Candidate) -> float:
        return other.estimate.ttft_s if is_ttft else other.estimate.tpot_s

    best: Relief | None = None
    now_s = best_s = limit_s(candidate)
    for change, shape, replicas in _neighbours(planner, candidate):
        other = planner.candidate(shape, replicas)
        if other is not None and limit_s(other) * _WORTH_IT < best_s:
            best_s = limit_s(other)
            best = Relief(change, shape, replicas, 0, 0, best_s, now_s)
    return best


def _twice_as_fast(deployment: Deployment, resource: Resource) -> Deployment:
    """Return the deployment on a chip, and links, with one resource twice as fast."""
    claims = deployment.chip.claims()
    changes = {  # A rate ends in _per_s, a duration in _s alone.
        name: _times(claim, 2.0 if name.endswith("_per_s") else 0.5)
        for name, claim in claims.items()
        if _resource_of(name) is resource
    }
    chip: ChipSpec = deployment.chip.model_copy(update=changes)
    rack: RackSpec = deployment.rack
    if resource is Resource.COLLECTIVES and rack.link_bytes_per_s is not None:
        rack = rack.model_copy(update={"link_bytes_per_s": _times(rack.link_bytes_per_s, 2.0)})
    return replace(deployment, chip=chip, rack=rack)


def _resource_of(field: str) -> Resource | None:
    if field.endswith("_flops_per_s"):
        return Resource.COMPUTE
    if field == "hbm_bytes_per_s":
        return Resource.HBM_BANDWIDTH
    if field.startswith(("link_", "all_reduce_")):
        return Resource.COLLECTIVES
    return Resource.OVERHEADS if field.endswith("_overhead_s") else None


def _times(claim: Claim, factor: float) -> Claim:
    return claim.model_copy(
        update={
            "value": claim.value * factor,
            "low": None if claim.low is None else claim.low * factor,
            "high": None if claim.high is None else claim.high * factor,
        }
    )
