"""Every way to lay a model out on a rack for a load of agent sessions, estimated and ranked.

Tensor, pipeline and expert parallelism x weight precision x KV precision x replicas. Estimates are
mean values (``hw_model.session_cycle``); a plan says what is worth simulating. A replica of ``pp``
stages is taken for ``pp`` replicas that share weights: each has one of the ``pp`` batches that the
stages work on at a time, a share of the sessions and a share of the KV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hw_model.agent_load import AgentLoad, Slo
from hw_model.claim import Band
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.errors import ConfigError, DoesNotFitError, InternalError
from hw_model.layout_shapes import NO_PINS, Pins, Shape, shapes
from hw_model.session_cycle import Coupling, Replica, ReplicaEstimate, estimate_replica
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec
from hw_model.step_table import StepTable
from hw_model.step_time import StepTimeModel
from hw_model.ttft_boundary import TtftBoundary


@dataclass(frozen=True, slots=True)
class Ask:
    """What a plan is for.

    Attributes:
        pins: What of a layout is given.
        num_replicas: Given, or None.
        ttft_boundary: Whose clock the TTFT is read on.
    """

    rack: RackSpec
    chip: ChipSpec
    model: ModelSpec
    load: AgentLoad
    slo: Slo
    pins: Pins = NO_PINS
    num_replicas: int | None = None
    limits: EngineLimits = field(default_factory=EngineLimits)
    ttft_boundary: TtftBoundary = TtftBoundary.CLIENT


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
        return self.shape.parallelism.num_chips * self.num_replicas

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
        self._errors: dict[Shape, ConfigError] = {}
        self.shapes = [
            shape
            for shape in shapes(ask.rack, ask.chip, ask.model, ask.pins)
            if self.deployment(shape)
        ]
        if not self.shapes:
            raise self._best_reason()
        largest = max(self.shapes, key=self._kv_tokens)
        if self._kv_tokens(largest) < ask.load.session_tokens:
            raise DoesNotFitError(self._too_long(largest))
        self.shapes = [s for s in self.shapes if self._kv_tokens(s) >= ask.load.session_tokens]
        if not any(self.replica_counts(shape) for shape in self.shapes):
            self._plan_deployment(self.shapes[0], Band.BASE, ask.num_replicas)  # says how many

    def num_layouts(self) -> int:
        """Return how many layouts there are to estimate."""
        return sum(len(self.replica_counts(shape)) for shape in self.shapes)

    def candidates(self, on_layouts: Callable[[int], None] | None = None) -> list[Candidate]:
        """Return every layout at band base, best first.

        Args:
            on_layouts: Called after every shape with how many layouts were estimated for it.

        Those that meet the ask come first: fewest chips, then widest weights and KV, which cost no
        quality, then the shortest TTFT. The others follow by how many sessions they carry, and
        where none carries any, by how far they are from the SLOs.
        """
        made = []
        for shape in self.shapes:
            counts = self.replica_counts(shape)
            made += [self.candidate(shape, replicas) for replicas in counts]
            if on_layouts is not None:
                on_layouts(len(counts))
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
        if deployment is None:
            return None
        if deployment.kv_tokens < self.ask.load.session_tokens:
            return None
        key = (shape, band, sessions)
        if key not in self._estimates:
            table = self._table(deployment, shape, band)
            self._estimates[key] = self._estimate(deployment, table, sessions, band)
        return self._estimates[key]

    def estimate_on(self, deployment: Deployment, sessions: int, band: Band) -> ReplicaEstimate:
        """Estimate one replica of a deployment that need not be a candidate's."""
        return self._estimate(deployment, self._new_table(deployment, band), sessions, band)

    def deployment(self, shape: Shape, band: Band = Band.BASE) -> Deployment | None:
        """Return the layout with as many replicas as possible; None where not even one is."""
        key = (shape, band)
        if key not in self._deployments:
            try:
                self._deployments[key] = self._plan_deployment(shape, band)
            except ConfigError as error:
                self._errors[shape] = error
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
        group = shape.parallelism.group_replicas
        if pinned is not None:
            return (pinned,) if pinned <= most and pinned % group == 0 else ()
        return range(group, most + 1, group)

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
            tp=shape.parallelism.tp,
            pp=shape.parallelism.pp,
            ep=shape.parallelism.ep,
            num_replicas=num_replicas,
            max_num_seqs=ask.limits.max_num_seqs,
        )
        return plan_deployment(ask.rack, ask.chip, ask.model, request, band=band)

    def _holds(self, shape: Shape, sessions: int, band: Band) -> bool:
        estimate = self.estimate(shape, sessions, band)
        slo = self.ask.slo
        return (
            estimate is not None
            and estimate.ttft_s <= slo.ttft_s
            and estimate.tpot_s <= slo.tpot_s
            and estimate.resident_sessions >= sessions
        )

    def _table(self, deployment: Deployment, shape: Shape, band: Band) -> StepTable:
        key = (shape, band)
        if key not in self._tables:
            self._tables[key] = self._new_table(deployment, band)
        return self._tables[key]

    def _new_table(self, deployment: Deployment, band: Band) -> StepTable:
        return StepTable(
            StepTimeModel(deployment, band),
            self.ask.load,
            self.ask.limits,
            deployment.block_size_tokens,
        )

    def _estimate(
        self, deployment: Deployment, table: StepTable, sessions: int, band: Band
    ) -> ReplicaEstimate:
        spread = deployment.parallelism
        batches = _batches(deployment, self.ask.load, sessions)
        one = estimate_replica(
            Replica(
                table,
                deployment.kv_tokens // batches,
                self.ask.limits.max_num_seqs,
                Coupling(spread.group_replicas, batches),
            ),
            self.ask.load,
            sessions=-(-sessions // batches),
            before_engine_s=self.ask.ttft_boundary.front_end(self.ask.chip, band).before_engine_s(
                self.ask.load.context_tokens
            ),
        )
        return replace(
            one,
            turns_per_s=one.turns_per_s * batches,
            decoding_sessions=one.decoding_sessions * batches,
            resident_sessions=min(sessions, one.resident_sessions * batches),
        )

    def _kv_tokens(self, shape: Shape) -> int:
        deployment = self.deployment(shape)
        return 0 if deployment is None else deployment.kv_tokens

    def _best_reason(self) -> ConfigError:
        """Return why the plainest layout with the narrowest weights is impossible."""
        plain = [e for shape, e in self._errors.items() if shape.parallelism[1:] == (1, 1)]
        errors = plain or list(self._errors.values())
        return next((e for e in reversed(errors) if isinstance(e, DoesNotFitError)), errors[0])

    def _too_long(self, largest: Shape) -> str:
        ask, load = self.ask, self.ask.load
        freed = ", or leave TP and precisions open" if ask.pins != NO_PINS else ""
        return (
            f"a session of {load.context_tokens:,} + {load.output_tokens:,} tokens fits no replica "
            f"that the options allow: the largest, {largest.parallelism.describe()} with "
            f"{largest.precision} weights "
            f"and {largest.kv_precision} KV, holds {self._kv_tokens(largest):,}; a context is kept "
            f"on one replica. Shorten the context{freed}."
        )


def _batches(deployment: Deployment, load: AgentLoad, sessions: int) -> int:
    """Return the batches in a replica's pipeline: no more than have a session whose KV fits."""
    return min(deployment.parallelism.pp, sessions, deployment.kv_tokens // load.session_tokens)


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
