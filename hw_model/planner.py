"""Every way to lay a model out on a rack for a load of agent sessions, estimated and ranked.

Tensor parallelism x weight precision x KV precision x replicas. Expert and pipeline parallelism are
not in the hardware model yet, so they are not in the plan. Estimates are mean values
(``hw_model.session_cycle``); a plan says what is worth simulating.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hw_model.agent_load import AgentLoad, Slo
from hw_model.claim import Band
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.errors import ConfigError, DoesNotFitError, InternalError
from hw_model.session_cycle import ReplicaEstimate, estimate_replica
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec
from hw_model.step_table import StepTable
from hw_model.step_time import StepTimeModel

KV_PRECISIONS = (Precision.BF16, Precision.FP8)
"""What serving engines keep KV in; narrower KV exists in papers."""


class Shape(NamedTuple):
    """One replica's layout."""

    tp: int
    precision: Precision
    kv_precision: Precision

    @property
    def precisions(self) -> tuple[Precision, Precision]:
        """Weights and KV: what a layout does to the quality of answers."""
        return self.precision, self.kv_precision


@dataclass(frozen=True, slots=True)
class Ask:
    """What a plan is for. A pin that is None is enumerated.

    Attributes:
        tp, precision, kv_precision, num_replicas: Pins.
    """

    rack: RackSpec
    chip: ChipSpec
    model: ModelSpec
    load: AgentLoad
    slo: Slo
    tp: int | None = None
    precision: Precision | None = None
    kv_precision: Precision | None = None
    num_replicas: int | None = None
    limits: EngineLimits = field(default_factory=EngineLimits)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layout under the load.

    Attributes:
        shape: Of a replica.
        num_replicas: How many.
        sessions: Of the fullest replica.
        resident_sessions: On all replicas, of those asked for.
        carries: Sessions that the replicas carry within the SLOs, all resident.
        estimate: Of the fullest replica.
        strain: The largest of TTFT, TPOT and sessions over what is asked or held; up to 1, the
            layout meets the ask.
    """

    shape: Shape
    num_replicas: int
    sessions: int
    resident_sessions: int
    carries: int
    estimate: ReplicaEstimate
    strain: float

    @property
    def num_chips(self) -> int:
        """Chips it takes."""
        return self.shape.tp * self.num_replicas

    @property
    def meets(self) -> bool:
        """Whether both SLOs hold and every session stays resident."""
        return self.strain <= 1


class Planner:
    """Estimates layouts for one ask, each once.

    Raises:
        ConfigError: A pin that the rack, chip or model can't do.
        DoesNotFitError: No layout holds the model, or none one session's context.
    """

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._deployments: dict[tuple[Shape, Band], Deployment | None] = {}
        self._tables: dict[tuple[Shape, Band], StepTable] = {}
        self._estimates: dict[tuple[Shape, Band, int], ReplicaEstimate] = {}
        self._capacities: dict[tuple[Shape, Band], int] = {}
        self._errors: list[ConfigError] = []
        self.shapes = [shape for shape in self._pinned_shapes() if self.deployment(shape)]
        if not self.shapes:
            fits = [e for e in self._errors if isinstance(e, DoesNotFitError)]
            raise (fits or self._errors)[-1]
        largest = max(self.shapes, key=self._kv_tokens)
        if self._kv_tokens(largest) < ask.load.session_tokens:
            raise DoesNotFitError(self._too_long(largest))
        self.shapes = [s for s in self.shapes if self._kv_tokens(s) >= ask.load.session_tokens]
        if not any(self.replica_counts(shape) for shape in self.shapes):
            self._plan_deployment(self.shapes[0], Band.BASE, ask.num_replicas)  # says how many

    def candidates(self) -> list[Candidate]:
        """Return every layout at band base, best first.

        Those that meet the ask come first: fewest chips, then widest weights and KV, which cost no
        quality, then the shortest TTFT. The others follow by how many sessions they carry, and
        where none carries any, by how far they are from the SLOs.
        """
        made = (
            self.candidate(shape, replicas)
            for shape in self.shapes
            for replicas in self.replica_counts(shape)
        )
        return sorted((c for c in made if c is not None), key=self.rank)

    def candidate(
        self, shape: Shape, num_replicas: int, band: Band = Band.BASE
    ) -> Candidate | None:
        """Estimate one layout; None where it does not hold one session."""
        load, slo = self.ask.load, self.ask.slo
        sessions = -(-load.sessions // num_replicas)
        estimate = self.estimate(shape, sessions, band)
        if estimate is None:
            return None
        resident = min(load.sessions, estimate.resident_sessions * num_replicas)
        strain = max(
            estimate.ttft_s / slo.ttft_s,
            estimate.tpot_s / slo.tpot_s,
            load.sessions / resident if resident < load.sessions else 0.0,
        )
        carries = self.capacity(shape, num_replicas, band)
        return Candidate(shape, num_replicas, sessions, resident, carries, estimate, strain)

    def estimate(
        self, shape: Shape, sessions: int, band: Band = Band.BASE
    ) -> ReplicaEstimate | None:
        """Estimate one replica with so many sessions; None where it does not hold one."""
        deployment = self.deployment(shape, band)
        load, limits = self.ask.load, self.ask.limits
        if deployment is None or deployment.kv_tokens < load.session_tokens:
            return None
        key = (shape, band, sessions)
        if key not in self._estimates:
            self._estimates[key] = estimate_replica(
                self._table(deployment, shape, band),
                load,
                sessions=sessions,
                kv_tokens=deployment.kv_tokens,
                limits=limits,
            )
        return self._estimates[key]

    def deployment(self, shape: Shape, band: Band = Band.BASE) -> Deployment | None:
        """Return the layout with as many replicas as possible; None where not even one is."""
        key = (shape, band)
        if key not in self._deployments:
            try:
                self._deployments[key] = self._plan_deployment(shape, band)
            except ConfigError as error:
                self._errors.append(error)
                self._deployments[key] = None
        return self._deployments[key]

    def laid_out(self, shape: Shape) -> Deployment:
        """Return the layout of a candidate's shape at band base.

        Raises:
            InternalError: The shape is none of a candidate's.
        """
        deployment = self.deployment(shape)
        if deployment is None:
            raise InternalError(f"{shape} is no candidate's shape")
        return deployment

    def cold_ttft_s(self, shape: Shape) -> float:
        """Return the seconds to compute a whole context alone on a replica of a candidate."""
        table = self._table(self.laid_out(shape), shape, Band.BASE)
        return table.prefill_s(table.cold, 0.0, 1.0)

    def replica_counts(self, shape: Shape) -> Sequence[int]:
        """Return the numbers of replicas that the ask and the rack allow."""
        deployment = self.deployment(shape)
        if deployment is None:
            return ()
        pinned, most = self.ask.num_replicas, deployment.num_replicas
        if pinned is not None:
            return (pinned,) if pinned <= most else ()
        return range(1, most + 1)

    def capacity(self, shape: Shape, num_replicas: int, band: Band = Band.BASE) -> int:
        """Return the most sessions that so many replicas carry within the SLOs, all resident."""
        deployment = self.deployment(shape, band)
        if deployment is None:
            return 0
        key = (shape, band)
        if key not in self._capacities:
            fits, misses = 0, deployment.kv_tokens // self.ask.load.session_tokens + 1
            while misses - fits > 1:
                middle = (fits + misses) // 2
                if self._holds(shape, middle, band):
                    fits = middle
                else:
                    misses = middle
            self._capacities[key] = fits
        return self._capacities[key] * num_replicas

    @staticmethod
    def rank(candidate: Candidate) -> tuple[float, ...]:
        """Return the sort key of :meth:`candidates`."""
        shape, estimate = candidate.shape, candidate.estimate
        quality = (-shape.precision.num_bytes, -shape.kv_precision.num_bytes)
        away = candidate.strain if candidate.carries == 0 else 0.0
        carried = 0 if candidate.meets else -candidate.carries
        order = (candidate.num_chips, *quality, estimate.ttft_s, estimate.tpot_s)
        return (not candidate.meets, carried, away, *order)

    def _plan_deployment(
        self, shape: Shape, band: Band, num_replicas: int | None = None
    ) -> Deployment:
        ask = self.ask
        request = DeploymentRequest(
            precision=shape.precision,
            kv_precision=shape.kv_precision,
            tp=shape.tp,
            num_replicas=num_replicas,
            max_num_seqs=ask.limits.max_num_seqs,
        )
        return plan_deployment(ask.rack, ask.chip, ask.model, request, band=band)

    def _holds(self, shape: Shape, sessions: int, band: Band) -> bool:
        estimate = self.estimate(shape, sessions, band)
        slo = self.ask.slo
        return (
            estimate is not None and estimate.ttft_s <= slo.ttft_s and estimate.tpot_s <= slo.tpot_s
        )

    def _table(self, deployment: Deployment, shape: Shape, band: Band) -> StepTable:
        key = (shape, band)
        if key not in self._tables:
            self._tables[key] = StepTable(
                StepTimeModel(deployment, band),
                self.ask.load,
                self.ask.limits,
                deployment.block_size_tokens,
            )
        return self._tables[key]

    def _pinned_shapes(self) -> Iterator[Shape]:
        ask = self.ask
        domain = int(min(ask.rack.domain_chips.value, ask.rack.num_chips.value))
        degrees = [1 << power for power in range(domain.bit_length()) if 1 << power <= domain]
        for precision in [ask.precision] if ask.precision else ask.chip.precisions():
            for kv_precision in [ask.kv_precision] if ask.kv_precision else KV_PRECISIONS:
                for tp in [ask.tp] if ask.tp else degrees:
                    yield Shape(tp, precision, kv_precision)

    def _kv_tokens(self, shape: Shape) -> int:
        deployment = self.deployment(shape)
        return 0 if deployment is None else deployment.kv_tokens

    def _too_long(self, largest: Shape) -> str:
        ask, load = self.ask, self.ask.load
        pinned = ask.tp or ask.precision or ask.kv_precision
        freed = ", or leave TP and precisions open" if pinned else ""
        return (
            f"a session of {load.context_tokens:,} + {load.output_tokens:,} tokens fits no replica "
            f"that the options allow: the largest, TP{largest.tp} with {largest.precision} weights "
            f"and {largest.kv_precision} KV, holds {self._kv_tokens(largest):,}; a context is kept "
            f"on one replica. Shorten the context{freed}."
        )


def shortlist(ranked: Sequence[Candidate], most: int) -> list[Candidate]:
    """Return what is worth showing of ranked candidates, in their order.

    The best of each pair of precisions, then those that no other of their precisions beats in
    chips, TTFT and TPOT at once.
    """
    best: dict[tuple[Precision, Precision], Candidate] = {}
    for candidate in ranked:
        best.setdefault(candidate.shape.precisions, candidate)
    chosen = list(best.values())[:most]
    for candidate in efficient(ranked):
        if len(chosen) >= most:
            break
        if candidate not in chosen:
            chosen.append(candidate)
    return sorted(chosen, key=Planner.rank)


def efficient(ranked: Iterable[Candidate]) -> list[Candidate]:
    """Return, in order, those that no other of the same precisions beats in all that counts."""
    kept: dict[tuple[Precision, Precision], list[Candidate]] = {}
    ranked = list(ranked)
    order = {id(candidate): place for place, candidate in enumerate(ranked)}
    for candidate in sorted(ranked, key=lambda c: (c.num_chips, c.estimate.ttft_s)):
        rivals = kept.setdefault(candidate.shape.precisions, [])
        if not any(_beats(rival, candidate) for rival in rivals):
            rivals.append(candidate)
    all_kept = [candidate for rivals in kept.values() for candidate in rivals]
    return sorted(all_kept, key=lambda candidate: order[id(candidate)])


def _beats(rival: Candidate, candidate: Candidate) -> bool:
    """Tell whether a rival of no more chips is no worse in anything."""
    return (
        rival.estimate.ttft_s <= candidate.estimate.ttft_s
        and rival.estimate.tpot_s <= candidate.estimate.tpot_s
        and rival.resident_sessions >= candidate.resident_sessions
    )
