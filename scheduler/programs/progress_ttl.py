"""Progress-TTL: vllm-router's program scheduling.

A program is active, so that its turns are dispatched when they come, or paused, so that they wait.
It is paused when a tool takes longer than its time to live, when its replica is too full, or when
it has had many turns and others wait. A turn that waits goes on when there is room for its program
and for what all active ones are going to grow; the one that ended a turn last goes first, since its
KV is the likeliest to be there; who has waited too long goes whatever the room.

Source: vllm-router 0.1.17 ``--enable-program-scheduling``, ``src/program_scheduling`` of
vllm-project/router, with the global queue, so that a paused program may move to another replica.
"""

from __future__ import annotations

from scheduler.cost import CostModel
from scheduler.ids import ReplicaId
from scheduler.programs.program import ProgramTable
from scheduler.programs.progress_admission import Rank, other_rank
from scheduler.programs.progress_formulas import (
    MAX_ROUNDS,
    ProgressLimits,
    acting_ttl_s,
    force_after_s,
    miss_impact_s,
    target_rounds,
)
from scheduler.programs.progress_program import ProgressProgram
from scheduler.programs.rank_window import RequestSample
from scheduler.programs.replica_load import idle_replicas, least_loaded
from scheduler.programs.ticker import Ticker
from scheduler.programs.tool_gaps import ended_gap_s
from scheduler.rack import Rack, ReplicaFleet
from scheduler.session import Session, Turn

TICK_S = 1.0
PUBLISHED = ProgressLimits()


class ProgressTtl:
    """Pauses and activates programs.

    Invariant: a replica's rank has exactly the active programs bound to it.
    """

    def __init__(
        self, fleet: ReplicaFleet, cost: CostModel, limits: ProgressLimits = PUBLISHED
    ) -> None:
        self._cost = cost
        self._limits = limits
        self._table = ProgramTable()
        self._programs: dict[Session, ProgressProgram] = {}
        self._ranks = [
            Rank(ReplicaId(at), fleet.max_context_tokens, cost) for at in range(fleet.num_replicas)
        ]
        self._ticker = Ticker(TICK_S)

    @property
    def next_wake_s(self) -> float | None:
        """The next tick; never while nobody reasons and no time to live runs."""
        return self._ticker.next_s

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Dispatch it if its program is active; else let it wait for room."""
        gap_s = ended_gap_s(turn, rack.now_s)
        known = self._programs.get(turn.session)
        before = 0.0 if known is None else known.private_tokens
        program = self._table.arrived(turn)
        progress = known or self._bind(turn.session, rack)
        rank = self._ranks[progress.replica]
        if gap_s is not None:
            rank.window.gaps_s.append(gap_s)
        if progress.is_active:
            rank.load.add(max(0.0, progress.private_tokens - before))
            progress.ttl_end_s = float("inf")
            program.run(rack, progress.replica)
        else:
            if len(program.held) == 1:
                progress.queued_s = rack.now_s
                progress.force_s = rack.now_s + self._force_after_s(progress, rack.now_s)
            self._admit(rack)
        self._ticker.want(rack.now_s)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:
        """Take note of what was found."""
        progress = self._programs[turn.session]
        progress.num_cached_tokens = num_cached_tokens
        progress.first_token_s = rack.now_s

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Let the time to live run, and decide on all."""
        program = self._table.ended(turn, rack.now_s)
        progress = self._programs[turn.session]
        if turn.replica_id is not None:
            self._sample(progress, turn, rack.now_s)
            if progress.is_active and not program.is_reasoning:
                self._act(progress, rack.now_s)
        self._decide(rack)

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Make room for others."""
        progress = self._programs.pop(session)
        self._ranks[progress.replica].pause(progress)
        self._table.forget(session)
        self._decide(rack)

    def woken(self, rack: Rack) -> None:
        """Take in reports and decide on all."""
        if not self._ticker.rings(rack.now_s):
            return
        for rank in self._ranks:
            rank.report(rack)
        self._decide(rack)
        if self._table.any_reasoning() or any(rank.active for rank in self._ranks):
            self._ticker.want(rack.now_s)

    def _bind(self, session: Session, rack: Rack) -> ProgressProgram:
        """Bind a new program where the fewest are; it starts paused."""
        counts = [0] * len(self._ranks)
        for one in self._programs.values():
            counts[one.replica] += one.is_active or one.program.is_reasoning
        program = self._table.of(session)
        program.is_paused = True
        progress = ProgressProgram(program, least_loaded(counts, rack))
        self._programs[session] = progress
        return progress

    def _force_after_s(self, progress: ProgressProgram, now_s: float) -> float:
        """Return how long a program waits at most, by the work ahead of it on all replicas."""
        if not all(rank.window.is_full for rank in self._ranks):
            return self._limits.max_force_s
        active = sum(sum(rank.remaining_rounds(floor=True)) for rank in self._ranks)
        waiting = self._waiting(now_s)
        ahead = waiting[: waiting.index(progress)]
        pool = sum(max(1.0, target_rounds(self._ranks[one.replica].window)) for one in ahead)
        rate = sum(rank.window.requests_per_s for rank in self._ranks)
        return force_after_s(active + pool, rate, self._limits.max_force_s)

    def _sample(self, progress: ProgressProgram, turn: Turn, now_s: float) -> None:
        session = turn.session
        first_s = now_s if progress.first_token_s is None else progress.first_token_s
        growth = progress.ended(turn.num_prompt_tokens, now_s)
        progress.impact_s = miss_impact_s(
            self._cost, turn.num_prompt_tokens - progress.shared_tokens
        )
        progress.first_token_s = None
        self._ranks[progress.replica].window.requests.append(
            RequestSample(
                num_prompt_tokens=turn.num_prompt_tokens,
                num_output_tokens=max(0, session.context_tokens - turn.num_prompt_tokens),
                growth_tokens=growth,
                decode_s=now_s - first_s,
                num_rounds=progress.num_rounds_since_ttl,
                ended_s=now_s,
            )
        )

    def _act(self, progress: ProgressProgram, now_s: float) -> None:
        """A program's last turn has ended: pause it, or let its time to live begin."""
        window = self._ranks[progress.replica].window
        if progress.program.is_marked:
            self._pause(progress)
            return
        ttl_s = acting_ttl_s(window.gaps_s, progress.impact_s, self._limits.max_ttl_s)
        progress.ttl_end_s = now_s + ttl_s
        others_wait = any(
            one.replica == progress.replica and not one.is_active and one.program.held
            for one in self._programs.values()
        )
        if progress.num_rounds >= MAX_ROUNDS and others_wait:
            self._pause(progress)
            progress.has_yielded = True

    def _pause(self, progress: ProgressProgram) -> None:
        self._ranks[progress.replica].pause(progress)
        progress.program.is_paused = True
        progress.program.is_marked = False
        progress.was_paused = True
        progress.num_rounds = 0
        progress.ttl_end_s = float("inf")

    def _decide(self, rack: Rack) -> None:
        """Expire times to live, repair what is too full, let others go on."""
        for rank in self._ranks:
            for one in list(rank.active):
                if one.ttl_end_s <= rack.now_s and not one.program.is_reasoning:
                    self._pause(one)
                    one.num_rounds_since_ttl = 0
            for one in rank.victims(rack.now_s):
                if one.program.is_reasoning:
                    one.program.is_marked = True
                else:
                    self._pause(one)
        self._admit(rack)

    def _waiting(self, now_s: float) -> list[ProgressProgram]:
        """Return the paused whose turn has come, in the order in which they go on."""

        def key(one: ProgressProgram) -> tuple[bool, int, bool, float, float]:
            urgency = min(turn.priority for turn in one.program.held)
            return one.force_s > now_s, urgency, one.has_yielded, -one.ended_s, one.queued_s

        waiting = [one for one in self._programs.values() if not one.is_active and one.program.held]
        return sorted(waiting, key=key)

    def _admit(self, rack: Rack) -> None:
        """Let waiting programs go on: at home, then elsewhere, then wherever nothing runs."""
        now_s = rack.now_s
        for one in self._waiting(now_s):
            home = self._ranks[one.replica]
            if one.force_s <= now_s or home.admits(one, now_s):
                self._activate(one, home, rack)
        waiting = self._waiting(now_s)
        for one in sorted(waiting, key=lambda one: (one.has_yielded, one.queued_s)):
            if one.was_paused and now_s - one.queued_s >= TICK_S:
                rank = other_rank(one, self._ranks, waiting, now_s)
                if rank is not None:
                    self._activate(one, rank, rack)
                    waiting.remove(one)
        for replica in idle_replicas(rack):
            first = next((one for one in waiting if one.replica == replica), None)
            if first is not None:
                self._activate(first, self._ranks[replica], rack)

    def _activate(self, progress: ProgressProgram, rank: Rank, rack: Rack) -> None:
        progress.replica = rank.replica_id
        progress.program.is_paused = False
        progress.has_yielded = False
        progress.num_rounds = 0
        progress.active_since_s = rack.now_s
        progress.force_s = float("inf")
        rank.activate(progress)
        progress.program.run(rack, rank.replica_id)
