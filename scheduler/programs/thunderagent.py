"""ThunderAgent: agents whose KV does not fit are paused at a tool boundary, and resumed anywhere.

Every five seconds: paused agents are resumed where there is room, then replicas that are too full
pause some. Whoever is paused has its turns held and its replica forgotten; its KV is taken for
gone. The shortest are paused first, to have the least computed again, and resumed first.

Sources: ThunderAgent, arXiv 2602.13692, and its ``scheduler/router.py`` (order of steps and groups,
weight 1 of acting agents when it pauses, 100 tokens a program, best fit decreasing, forced resume);
NVIDIA Dynamo 1.6's port, ``thunderagent-router.md`` (thresholds; the decay when it resumes).
"""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.programs.program import Program, ProgramTable
from scheduler.programs.replica_load import idle_replicas, kv_usage
from scheduler.programs.ticker import Ticker
from scheduler.rack import Rack
from scheduler.session import Session, Turn

TICK_S = 5.0
PAUSE_ABOVE, PAUSE_DOWN_TO = 0.95, 0.80
RESUME_BELOW = PAUSE_ABOVE - 0.10
BUFFER_TOKENS = 100
"""Of every program, for what it generates."""
DECAY_S = 1.0
"""In which the weight of an acting program halves, when room is sought to resume others."""
TUNED_DECAY_S = 60.0
FORCED_RESUME_S = 1800.0


def resume_weight(program: Program, now_s: float, decay_s: float) -> float:
    """Return the share of a program's context that a resume reckons with.

    ``f(t) = 2**(-t / decay_s)``, t since it began to act; all of it while it reasons.
    """
    if program.is_reasoning:
        return 1.0
    return float(2.0 ** (-(now_s - program.acting_since_s) / decay_s))


def best_fit_decreasing(tokens: list[int], room: list[float]) -> list[int | None]:
    """Place programs, the largest first, each where most room is.

    Args:
        tokens: What each needs, in the order in which they are wanted.
        room: Of every replica.

    Returns:
        A replica for each program; None for one that was not chosen or fits nowhere. Chosen is,
        in order, who fits into the rest of all room together.
    """
    rest = list(room)
    total = sum(left for left in rest if left > BUFFER_TOKENS)
    chosen = []
    for index, need in enumerate(tokens):
        if need <= total:
            chosen.append(index)
            total -= need
    places: list[int | None] = [None] * len(tokens)
    for index in sorted(chosen, key=lambda one: -tokens[one]):
        emptiest = max(range(len(rest)), key=rest.__getitem__)
        if tokens[index] <= rest[emptiest]:
            places[index] = emptiest
            rest[emptiest] -= tokens[index]
    return places


class ThunderAgent:
    """Pauses and resumes programs by the KV they amount to.

    Args:
        num_replicas: Of the rack.
        capacity_tokens: KV of one replica.
        decay_s: See ``DECAY_S``.

    Invariant: a program that is not paused has a replica, and none of its turns is held.
    """

    def __init__(self, num_replicas: int, capacity_tokens: int, decay_s: float = DECAY_S) -> None:
        self._decay_s = decay_s
        self._num_replicas = num_replicas
        self._capacity = capacity_tokens
        self._programs = ProgramTable()
        self._ticker = Ticker(TICK_S)
        self._shared = [0.0] * num_replicas  # KV tokens that programs have in common

    @property
    def next_wake_s(self) -> float | None:
        """The next tick; never while all programs act and none is paused."""
        return self._ticker.next_s

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Run it unless its program is paused, or new and without room."""
        program = self._programs.arrived(turn)
        self._ticker.want(rack.now_s)
        if program.is_paused:
            return
        replica = program.replica
        if replica is None and not any(one.is_paused for one in self._programs):
            replica = self._place_new(program, rack)
        if replica is None:
            program.is_paused = True
        else:
            program.run(rack, replica)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:
        """Nothing."""

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Pause its program if it was marked."""
        program = self._programs.ended(turn, rack.now_s)
        if program.is_marked and not program.is_reasoning:
            self._pause(program)

    def session_closed(self, session: Session, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Forget its program."""
        self._programs.forget(session)

    def woken(self, rack: Rack) -> None:
        """Resume, then pause: whom this tick pauses, it does not resume."""
        if not self._ticker.rings(rack.now_s):
            return
        for at in range(self._num_replicas):
            self._shared[at] = self._shared_tokens(ReplicaId(at), rack)
        self._force(rack)
        self._resume(rack)
        for at in range(self._num_replicas):
            self._pause_until_safe(ReplicaId(at))
        self._fill_idle(rack)
        if any(one.is_paused or one.is_reasoning for one in self._programs):
            self._ticker.want(rack.now_s)

    def _on(self, replica_id: ReplicaId) -> list[Program]:
        return [one for one in self._programs if one.replica == replica_id and not one.is_paused]

    def _rooms(self, now_s: float, decay_s: float) -> list[float]:
        """Return the tokens that may be added to each replica; negative when some must go."""
        rooms = [RESUME_BELOW * self._capacity + shared for shared in self._shared]
        for one in self._programs:
            if one.replica is not None and not one.is_paused:
                tokens = one.context_tokens * resume_weight(one, now_s, decay_s)
                rooms[one.replica] -= tokens + BUFFER_TOKENS
        return rooms

    def _place_new(self, program: Program, rack: Rack) -> ReplicaId | None:
        """Return the replica with the fewest tokens, if it has room without any decay."""
        need = program.context_tokens + BUFFER_TOKENS
        room = self._rooms(rack.now_s, float("inf"))
        most = ReplicaId(room.index(max(room)))
        return most if room[most] >= need else None

    def _shared_tokens(self, replica_id: ReplicaId, rack: Rack) -> float:
        """Return how much less KV is held than the contexts that hold it add up to.

        A turn that waits in the engine holds none, so only those with a first token count.
        """
        if rack.probe is None:
            return 0.0
        prefilled = {one.session: one for one in rack.turns[replica_id] if one.is_prefilled}
        tokens = sum(turn.num_prompt_tokens for turn in prefilled.values())
        return max(0.0, tokens - kv_usage(rack, replica_id) * self._capacity)

    def _resume_order(self) -> list[Program]:
        """Return the paused: returning, new, acting; the shortest first in each group."""

        def key(program: Program) -> tuple[int, int, int]:
            session = program.session
            group = 2 if not program.held else 1 if session.num_turns_ended == 0 else 0
            return group, program.context_tokens, session.order

        return sorted((one for one in self._programs if one.is_paused), key=key)

    def _resume(self, rack: Rack) -> None:
        paused = self._resume_order()
        needs = [one.context_tokens + BUFFER_TOKENS for one in paused]
        room = self._rooms(rack.now_s, self._decay_s)
        for program, place in zip(paused, best_fit_decreasing(needs, room), strict=True):
            if place is not None:
                self._resume_on(program, ReplicaId(place), rack)

    def _force(self, rack: Rack) -> None:
        """Resume at home who has waited for half an hour, whatever the room."""
        for program in self._programs.waiting():
            if rack.now_s - program.held_since_s >= FORCED_RESUME_S:
                home = program.session.home
                self._resume_on(program, self._fewest_programs() if home is None else home, rack)

    def _fill_idle(self, rack: Rack) -> None:
        """Give a replica without turns somebody, were its context all that fits."""
        for replica in idle_replicas(rack):
            waiting = next((one for one in self._resume_order() if one.held), None)
            if waiting is not None:
                self._resume_on(waiting, replica, rack)

    def _fewest_programs(self) -> ReplicaId:
        counts = [len(self._on(ReplicaId(at))) for at in range(self._num_replicas)]
        return ReplicaId(counts.index(min(counts)))

    def _resume_on(self, program: Program, replica_id: ReplicaId, rack: Rack) -> None:
        program.is_paused = False
        program.run(rack, replica_id)

    def _pause(self, program: Program) -> None:
        program.is_paused = True
        program.is_marked = False
        program.replica = None

    def _pause_until_safe(self, replica_id: ReplicaId) -> None:
        """Pause the acting and mark the reasoning, shortest first, once it is too full."""
        there = [one for one in self._on(replica_id) if not one.is_marked]
        used = sum(one.context_tokens + BUFFER_TOKENS for one in there) - self._shared[replica_id]
        if used < PAUSE_ABOVE * self._capacity:
            return
        for program in sorted(there, key=lambda one: (one.is_reasoning, one.context_tokens)):
            if used <= PAUSE_DOWN_TO * self._capacity:
                return
            if program.is_reasoning:
                program.is_marked = True
            else:
                self._pause(program)
            used -= program.context_tokens + BUFFER_TOKENS
