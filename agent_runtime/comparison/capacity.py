"""How many sessions a rack could serve: a bound that no schedule beats, to measure load with.

A fluid plan. Every turn computes what no turn before it has, and decodes in a full batch; each tool
gap is either held in HBM, which takes room, or dropped, which takes the prefill again. Dropping the
gaps that save least per byte-second first trades one for the other, and the best plan is where the
scarcer of compute and room is least scarce. The rack is taken for one pool, contexts for divisible
and all batches for full, so no real schedule gets there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agent_runtime.workload.block_id_runs import common_prefix
from agent_runtime.workload.session_script import SessionScript, Workload
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.step_time import StepTimeModel
from scheduler.cost import TabulatedCost


@dataclass(frozen=True, slots=True)
class Demand:
    """What one session, sub-agents included, asks of the rack.

    Attributes:
        compute_s: Replica-seconds, were nothing ever computed twice.
        active_token_s: Context held while turns run, in token-seconds.
        alone_s: From its first turn to its end with nobody else there.
        gaps: ``(token-seconds to hold, replica-seconds to compute it again)`` of every tool gap.
    """

    compute_s: float
    active_token_s: float
    alone_s: float
    gaps: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a rack can serve of a workload's sessions, at most.

    Attributes:
        sessions_per_s: Of the whole rack; a load of 1 offers as many.
        compute_share, room_share: How much of each is used then; the larger one is 1.
        held_share: Share of the gaps' token-seconds that are held in HBM.
        alone_s: Mean session with nobody else on the rack.
    """

    sessions_per_s: float
    compute_share: float
    room_share: float
    held_share: float
    alone_s: float


def rack_capacity(workload: Workload, deployment: Deployment, band: Band) -> Capacity:
    """Return the capacity of a deployment for the sessions of a workload, each equally likely.

    Raises:
        ValueError: No session fits a replica.
    """
    book = _DemandBook(deployment, band)
    demands = [book.demand(script) for script in workload.sessions if book.fits(script)]
    if not demands:
        raise ValueError("no session fits a replica")
    num = len(demands)
    compute_s = sum(demand.compute_s for demand in demands) / num
    held_token_s = sum(demand.active_token_s for demand in demands) / num
    gaps = np.array([gap for demand in demands for gap in demand.gaps]).reshape(-1, 2) / num
    order = np.argsort(gaps[:, 1] / np.maximum(gaps[:, 0], 1e-12))  # least saved per room first
    token_s, again_s = gaps[order, 0], gaps[order, 1]
    # Row n drops the first n gaps.
    compute = compute_s + np.concatenate(([0.0], np.cumsum(again_s)))
    room = held_token_s + np.concatenate(([0.0], np.cumsum(token_s[::-1])))[::-1]
    room_s = room / deployment.kv_tokens
    bottleneck = np.maximum(compute, room_s)
    best = int(np.argmin(bottleneck))
    total = float(token_s.sum())
    return Capacity(
        sessions_per_s=deployment.num_replicas / float(bottleneck[best]),
        compute_share=float(compute[best] / bottleneck[best]),
        room_share=float(room_s[best] / bottleneck[best]),
        held_share=float(token_s[best:].sum()) / total if total else 1.0,
        alone_s=sum(demand.alone_s for demand in demands) / num,
    )


class _DemandBook:
    """Adds up what sessions ask of one replica."""

    def __init__(self, deployment: Deployment, band: Band) -> None:
        self._cost = TabulatedCost.of(deployment, band, 8192)
        self._step_time = StepTimeModel(deployment, band)
        self._deployment = deployment

    def fits(self, script: SessionScript) -> bool:
        """Return whether every context of a session fits a replica."""
        return script.peak_context_tokens() <= self._deployment.kv_tokens

    def demand(self, script: SessionScript) -> Demand:
        """Return a session's demand."""
        compute_s = active_token_s = 0.0
        gaps = []
        alone_s = 0.0
        for turn_s, turn_compute_s, tokens, gap_s, child in self._turns(script):
            compute_s += turn_compute_s
            active_token_s += tokens * turn_s
            alone_s += turn_s + gap_s
            gaps.append((tokens * gap_s, self._cost.prefill_s(0, max(1, tokens))))
            if child is not None:
                compute_s += child.compute_s
                active_token_s += child.active_token_s
                gaps.extend(child.gaps)
        return Demand(compute_s, active_token_s, alone_s, tuple(gaps))

    def _turns(
        self, script: SessionScript
    ) -> Iterator[tuple[float, float, int, float, Demand | None]]:
        """Yield each turn's seconds, replica-seconds, context, the gap before it and children."""
        block = self._deployment.block_size_tokens
        wait_s, children = 0.0, None
        before: tuple[tuple[int, int], ...] = ()
        for turn in script.turns:
            cached = common_prefix(before, turn.block_id_runs) * block
            cached = min(cached, (turn.isl_tokens - 1) // block * block)
            before = turn.block_id_runs
            prefill_s = self._cost.prefill_s(cached, turn.isl_tokens)
            tokens = turn.isl_tokens + turn.osl_tokens // 2
            alone_s, shared_s = self._decode_s(tokens, turn.osl_tokens - 1)
            yield (
                prefill_s + alone_s,
                prefill_s + shared_s,
                turn.isl_tokens + turn.osl_tokens,
                turn.gap_s + wait_s,
                children,
            )
            demands = [self.demand(child) for child in turn.children]
            wait_s = max((demand.alone_s for demand in demands), default=0.0)
            children = _joint(demands)

    def _decode_s(self, context_tokens: int, num_tokens: int) -> tuple[float, float]:
        """Return the seconds to decode alone, and this sequence's share of a full batch."""
        batch = max(1, self._deployment.kv_tokens // context_tokens)
        one_s, kv_s = self._step_time.decode_line(1)
        batch_s, _ = self._step_time.decode_line(min(batch, 256))
        per_kv = kv_s * context_tokens
        return (one_s + per_kv) * num_tokens, (batch_s / min(batch, 256) + per_kv) * num_tokens


def _joint(demands: list[Demand]) -> Demand | None:
    if not demands:
        return None
    return Demand(
        compute_s=sum(demand.compute_s for demand in demands),
        active_token_s=sum(demand.active_token_s for demand in demands),
        alone_s=max(demand.alone_s for demand in demands),
        gaps=tuple(gap for demand in demands for gap in demand.gaps),
    )
