"""Whether Progress-TTL lets a program go on on a replica, and who leaves one that is too full.

Source: vllm-router 0.1.17, ``program_scheduling/scheduler_admission.rs`` (``rank_admission_plan``),
``scheduler_global.rs`` (moving to another replica) and ``scheduler_lifecycle.rs`` (repair). Both
watermarks are 1, as there.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.cost import CostModel
from scheduler.ids import ReplicaId
from scheduler.programs.progress_formulas import (
    BatchGain,
    growth_reserve_tokens,
    miss_impact_s,
    repair_score,
    target_rounds,
)
from scheduler.programs.progress_program import ProgressProgram
from scheduler.programs.rank_load import RankLoad, reported_tokens
from scheduler.programs.rank_window import RankWindow
from scheduler.rack import Rack

MOST_ACTIVE = 64
WAITING_THRESHOLD = 1
HEADROOM_CONTEXTS = 1.2
"""Contexts that another replica must have more room for, to move there."""


class Rank:
    """One replica as Progress-TTL sees it.

    Attributes:
        active: The active programs bound to it.
        window: What it has lately done.
        load: What it reports.
    """

    __slots__ = ("_capacity", "_cost", "active", "load", "replica_id", "window")

    def __init__(self, replica_id: ReplicaId, capacity_tokens: int, cost: CostModel) -> None:
        self.replica_id = replica_id
        self._capacity = capacity_tokens
        self._cost = cost
        self.active: dict[ProgressProgram, None] = {}
        self.window = RankWindow()
        self.load = RankLoad()

    def report(self, rack: Rack) -> None:
        """Take in what the replica reports now."""
        probe = rack.probe
        if probe is None:
            return
        reasoning = [one for one in self.active if one.program.is_reasoning]
        tokens = reported_tokens(
            probe.kv_usage(self.replica_id) * self._capacity,
            probe.num_running(self.replica_id),
            len(reasoning),
            sum(one.private_tokens for one in reasoning),
        )
        acting = sum(one.private_tokens for one in self.active if not one.program.is_reasoning)
        waiting = probe.num_waiting(self.replica_id)
        self.load.report(tokens + acting, waiting, rack.now_s)

    def activate(self, program: ProgressProgram) -> None:
        """Count an active program."""
        self.active[program] = None
        self.load.add(program.private_tokens)

    def pause(self, program: ProgressProgram) -> None:
        """Count it no longer."""
        if self.active.pop(program, self) is None:
            self.load.add(-program.private_tokens)

    def used_tokens(self, now_s: float) -> float:
        """Return what its active programs amount to."""
        if self.load.is_fresh(now_s):
            return self.load.tokens
        return sum(one.private_tokens for one in self.active)

    def headroom_tokens(self, now_s: float) -> float:
        """Return what it has room for."""
        return max(0.0, self._capacity - self.used_tokens(now_s))

    def is_backed_up(self, now_s: float) -> bool:
        """Return whether requests wait in its engine."""
        return self.load.is_fresh(now_s) and self.load.num_waiting >= WAITING_THRESHOLD

    def remaining_rounds(self, *, floor: bool = False) -> list[float]:
        """Return the turns reserved for each active program; one at least while it reasons."""
        rounds = target_rounds(self.window)
        return [
            max(rounds - one.num_rounds, 1.0 if floor and one.program.is_reasoning else 0.0)
            for one in self.active
        ]

    def pressure(self, program: ProgressProgram, now_s: float) -> float:
        """Return the share of the replica that is taken with a program and all reserves."""
        reserve = growth_reserve_tokens(self.window, self.remaining_rounds())
        return (self.used_tokens(now_s) + program.private_tokens + reserve) / self._capacity

    def admits(self, program: ProgressProgram, now_s: float) -> bool:
        """Return whether a program may go on here now, its time not being over."""
        if self.is_backed_up(now_s) or len(self.active) >= MOST_ACTIVE:
            return False
        used, required = self.used_tokens(now_s), program.private_tokens
        if used + required > self._capacity:
            return False
        if self.pressure(program, now_s) <= 1:
            return True
        running = [one.program.context_tokens for one in self.active if one.program.is_reasoning]
        rounds = zip(self.remaining_rounds(), self.active, strict=True)
        candidate = program.program.context_tokens
        gain = BatchGain(
            num_running=len(running),
            num_running_tokens=sum(running),
            candidate_tokens=candidate,
            room_tokens=self._capacity - used,
            required_tokens=required,
            protected=[(left, one.impact_s) for left, one in rounds if left > 0],
            recovery_s=miss_impact_s(self._cost, candidate - program.shared_tokens),
        )
        return gain.admits(self.window)

    def victims(self, now_s: float) -> list[ProgressProgram]:
        """Return who is to be paused, or marked if it reasons, for the rest to fit."""
        output = self.window.mean_output_tokens
        num_reasoning = sum(one.program.is_reasoning for one in self.active)
        projected = self.used_tokens(now_s) + output * num_reasoning
        victims = []
        for one in self._by_repair_score(now_s):
            if projected <= self._capacity:
                break
            if one.program.is_marked:
                continue
            projected -= one.private_tokens + (output if one.program.is_reasoning else 0.0)
            victims.append(one)
        return victims

    def _by_repair_score(self, now_s: float) -> Iterable[ProgressProgram]:
        mean = self.window.mean_prompt_tokens

        def key(one: ProgressProgram) -> tuple[float, int]:
            score = repair_score(now_s - one.active_since_s, one.program.context_tokens, mean)
            return -score, one.program.session.order

        return sorted(self.active, key=key)


def other_rank(
    program: ProgressProgram, ranks: list[Rank], waiting: list[ProgressProgram], now_s: float
) -> Rank | None:
    """Return the replica to move a paused program to; None if none is much better off.

    Both must have a full window, and nobody may wait for the other one.
    """
    home = ranks[program.replica]
    context = program.program.context_tokens
    taken = {one.replica for one in waiting if one is not program}
    candidates = [
        rank
        for rank in ranks
        if rank is not home
        and rank.replica_id not in taken
        and home.window.is_full
        and rank.window.is_full
        and rank.headroom_tokens(now_s) >= home.headroom_tokens(now_s) + HEADROOM_CONTEXTS * context
        and rank.admits(program, now_s)
    ]
    return min(
        candidates,
        key=lambda rank: (
            rank.load.num_waiting,
            rank.pressure(program, now_s),
            len(rank.active),
            rank.replica_id,
        ),
        default=None,
    )
