"""MORI: the busiest agents' KV stays in HBM, the idler ones' in host memory, the rest is dropped.

A program is in one of three queues: HBM, where its turns run; host memory of the replica that
computed it; or waiting, with nothing anywhere. Every five seconds the idlest leave a replica whose
programs do not fit. Programs whose turn has come return where there is room: first those in host
memory, to their replica, the busiest first; then those that wait, returning ones before new ones,
the smallest first, home if it has room or else where most is.

Source: MORI, arXiv 2606.00866. A program moves only when a capacity is crossed (its stickiness).
Room is looked for at every arrival and end as well, since to wait for the next tick helps nobody.
Its eviction by type is what keeping the KV of those in HBM amounts to: others' goes first.
"""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.programs.idleness import Idleness
from scheduler.programs.pins import Pins
from scheduler.programs.program import Program, ProgramTable
from scheduler.programs.replica_load import idle_replicas
from scheduler.programs.ticker import Ticker, earliest
from scheduler.rack import Rack, ReplicaFleet
from scheduler.session import Session, Turn

TICK_S = 5.0


class Mori:
    """Ranks programs by idleness and gives each tier what fits.

    Invariant: a program is paused exactly while it is not in HBM; in host memory it has the replica
        whose memory that is, waiting it has none.
    """

    def __init__(self, fleet: ReplicaFleet) -> None:
        self._fleet = fleet
        self._programs = ProgramTable()
        self._idleness: dict[Session, Idleness] = {}
        self._pins = Pins(lambda turn: turn.dispatched_s, self._idle_ratio)
        self._ticker = Ticker(TICK_S)

    @property
    def next_wake_s(self) -> float | None:
        """The next tick, or when a queue may stand still."""
        return earliest(self._ticker.next_s, self._pins.next_wake_s)

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Run it if its program is in HBM, or can be."""
        program = self._programs.arrived(turn)
        idleness = self._idleness.setdefault(turn.session, Idleness())
        idleness.arrived(rack.now_s)
        self._ticker.want(rack.now_s)
        if program.replica is not None and not program.is_paused:
            self._run(program, program.replica, rack)
        else:
            program.is_paused = True
            self._promote(rack)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Unpin: the turn holds its KV itself now."""
        self._pins.unpin(turn.session, rack)
        if turn.replica_id is not None:
            self._pins.make_room(turn.replica_id, rack)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Keep its KV, unless its program is to leave."""
        program = self._programs.ended(turn, rack.now_s)
        replica = turn.replica_id
        if program.num_running == 0:
            self._idleness[turn.session].ended(rack.now_s)
        if replica is not None:
            if not program.is_reasoning:
                self._leave_or_stay(program, rack)
            self._pins.make_room(replica, rack)
        self._promote(rack)

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Give up its KV, for others."""
        self._programs.forget(session)
        del self._idleness[session]
        self._pins.drop(session, rack)
        self._promote(rack)

    def woken(self, rack: Rack) -> None:
        """Let the idlest go where too many are, and others in."""
        self._pins.look_again(rack)
        if not self._ticker.rings(rack.now_s):
            return
        for at in range(self._fleet.num_replicas):
            self._demote_overflow(ReplicaId(at), rack)
        self._promote(rack)
        if self._programs.any_reasoning():
            self._ticker.want(rack.now_s)

    def _idle_ratio(self, session: Session, now_s: float) -> float:
        return self._idleness[session].ratio(now_s)

    def _leave_or_stay(self, program: Program, rack: Rack) -> None:
        if program.is_marked:
            self._demote(program, rack)
        elif program.replica is not None and not program.session.closed:
            self._pins.pin(program.session, program.replica, float("inf"), rack)

    def _run(self, program: Program, replica_id: ReplicaId, rack: Rack) -> None:
        program.is_paused = False
        program.run(rack, replica_id)
        self._idleness[program.session].dispatched(rack.now_s)
        self._pins.make_room(replica_id, rack)

    def _room(self, replica_id: ReplicaId) -> int:
        """Return the tokens of HBM that no program there has taken; negative on overflow."""
        return self._fleet.max_context_tokens - sum(
            one.context_tokens
            for one in self._programs
            if one.replica == replica_id and not one.is_paused and not one.is_marked
        )

    def _host_room(self, replica_id: ReplicaId) -> int:
        return self._fleet.host_kv_tokens - sum(
            one.context_tokens
            for one in self._programs
            if one.replica == replica_id and one.is_paused
        )

    def _demote_overflow(self, replica_id: ReplicaId, rack: Rack) -> None:
        """Let the idlest leave; who reasons does so when its turn ends."""
        room = self._room(replica_id)
        there = [
            one
            for one in self._programs
            if one.replica == replica_id and not one.is_paused and not one.is_marked
        ]

        def key(program: Program) -> tuple[float, bool, int]:
            idle = self._idle_ratio(program.session, rack.now_s)
            return -idle, program.is_reasoning, program.session.order

        for program in sorted(there, key=key):
            if room >= 0:
                return
            room += program.context_tokens
            if program.is_reasoning:
                program.is_marked = True
            else:
                self._demote(program, rack)

    def _demote(self, program: Program, rack: Rack) -> None:
        """Move a program to host memory, which has a copy of all that is computed, or drop it."""
        replica = program.replica
        program.is_marked = False
        if replica is None or program.context_tokens > self._host_room(replica):
            program.replica = None
        program.is_paused = True
        self._pins.unpin(program.session, rack)

    def _waiting_order(self, now_s: float) -> list[Program]:
        """Return the paused whose turn has come, first who is let in first."""

        def key(program: Program) -> tuple[int, float, int]:
            session, tokens = program.session, program.context_tokens
            if program.replica is not None:
                return 0, self._idle_ratio(session, now_s), tokens
            return (2 if session.num_turns_ended == 0 else 1), tokens, session.order

        return sorted((one for one in self._programs.waiting() if one.is_paused), key=key)

    def _promote(self, rack: Rack) -> None:
        waiting = self._waiting_order(rack.now_s)
        if waiting:
            rooms = [self._room(ReplicaId(at)) for at in range(self._fleet.num_replicas)]
            for program in waiting:
                at = self._place(program, rooms)
                if at is not None:
                    rooms[at] -= program.context_tokens
                    self._run(program, at, rack)
        for replica in idle_replicas(rack):
            first = next(
                (
                    one
                    for one in self._waiting_order(rack.now_s)
                    if one.replica is None or one.replica == replica
                ),
                None,
            )
            if first is not None:
                self._run(first, replica, rack)

    def _place(self, program: Program, rooms: list[int]) -> ReplicaId | None:
        """Return where a program goes: home if it fits there, else where most room is."""
        home = program.replica
        if home is None:
            home = program.session.home
            if home is None or rooms[home] < program.context_tokens:
                home = ReplicaId(rooms.index(max(rooms)))
        return home if rooms[home] >= program.context_tokens else None
