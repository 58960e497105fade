"""The one brain: events in, commands out.

It knows sessions, turns and how loaded replicas are, and tells a policy of what happens, which
decides. It does not know whether a replica is real, and it never waits: a driver tells it the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scheduler.commands import Command, Refuse
from scheduler.decision import Decision
from scheduler.errors import InvariantError
from scheduler.events import (
    Event,
    GapHinted,
    PrefillEnded,
    ReplicaDown,
    ReplicaUp,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.minds_replicas import MindsReplicas
from scheduler.policy import Policy
from scheduler.rack import Rack, ReplicaFleet, ReplicaProbe
from scheduler.receipt import Receipt
from scheduler.session import Session, Turn
from scheduler.session_view import SessionPhase, SessionView


class ClusterScheduler:
    """Has the turns of sessions run on replicas.

    Args:
        fleet: The replicas.
        policy: Decides.
        on_decision: Told of every event once it is handled, with receipts unless ``explains`` is
            set to False.
        probe: What the replicas report of themselves.

    Invariant: every turn that has arrived and not ended is in ``_turns``, held or dispatched;
        ``rack`` counts those dispatched, and the context of the live sessions at their homes.
    """

    def __init__(
        self,
        fleet: ReplicaFleet,
        policy: Policy,
        on_decision: Callable[[Decision], None] | None = None,
        probe: ReplicaProbe | None = None,
    ) -> None:
        self._fleet = fleet
        self._policy = policy
        self._minding = policy if isinstance(policy, MindsReplicas) else None
        self._on_decision = on_decision
        self._rack = Rack(fleet, probe)
        if on_decision is not None:
            self._rack.receipts = []
        self._sessions: dict[SessionId, Session] = {}
        self._turns: dict[TurnId, Turn] = {}
        self._num_opened = 0

    @property
    def explains(self) -> bool:
        """Whether policies leave receipts, which they make for whoever is told of decisions."""
        return self._rack.receipts is not None

    @explains.setter
    def explains(self, wanted: bool) -> None:
        if wanted != self.explains:
            self._rack.receipts = [] if wanted else None

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt + output that one replica holds."""
        return self._fleet.max_context_tokens

    @property
    def num_sessions(self) -> int:
        """Sessions opened and not closed."""
        return len(self._sessions)

    @property
    def num_held_turns(self) -> int:
        """Turns that wait to be dispatched."""
        return sum(turn.replica_id is None for turn in self._turns.values())

    @property
    def next_wake_s(self) -> float | None:
        """When the driver must hand in ``Woken``; it may change with every event."""
        return self._policy.next_wake_s

    def home_of(self, session_id: SessionId) -> ReplicaId | None:
        """Return the replica of a session's latest dispatch, None before the first. O(1)."""
        session = self._sessions.get(session_id)
        return None if session is None else session.home

    def session_view(self, session_id: SessionId) -> SessionView | None:
        """Return what is known of a session, None if it is not. O(1) in a gap, else O(turns)."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        phase = SessionPhase.GAP
        if session.num_active_turns:
            runs = any(
                turn.session is session and turn.replica_id is not None
                for turn in self._turns.values()
            )
            phase = SessionPhase.RUNNING if runs else SessionPhase.HELD
        return SessionView(
            session_id=session_id,
            phase=phase,
            home=session.home,
            context_tokens=session.context_tokens,
            num_turns_ended=session.num_turns_ended,
            last_ended_s=session.last_ended_s,
            gap=session.gap,
        )

    def handle(self, event: Event, now_s: float) -> Sequence[Command]:
        """Take in one event.

        Args:
            event: What happened.
            now_s: When, in seconds; never earlier than the event before.

        Returns:
            What to do about it, in order.

        Raises:
            InvariantError: The event contradicts what came before: a turn id used twice, the end of
                a turn that is not active, time running backwards.
        """
        rack = self._rack
        if now_s < rack.now_s:
            raise InvariantError(f"time went back from {rack.now_s} to {now_s}")
        rack.now_s = now_s
        self._take(event)
        commands: tuple[Command, ...] = ()
        if rack.commands:
            commands = tuple(rack.commands)
            rack.commands.clear()
        if self._on_decision is not None:
            receipts: tuple[Receipt, ...] = ()
            if rack.receipts:
                receipts = tuple(rack.receipts)
                rack.receipts.clear()
            self._on_decision(Decision(now_s, event, commands, receipts))
        return commands

    def check_invariants(self) -> None:
        """Raise if the counters contradict the sessions and turns. O(sessions + turns).

        Raises:
            InvariantError: Gives both counts, replica by replica.
        """
        num, rack = self._fleet.num_replicas, self._rack
        turns, prefill, active, tokens = ([0] * num for _ in range(4))
        for turn in self._turns.values():
            if turn.replica_id is not None:
                turns[turn.replica_id] += 1
                active[turn.replica_id] += turn.num_prompt_tokens
                if not turn.is_prefilled:
                    uncached = turn.num_prompt_tokens - turn.num_expected_cached_tokens
                    prefill[turn.replica_id] += uncached
        for session in self._sessions.values():
            if session.home is not None:
                tokens[session.home] += session.context_tokens
        for name, found, counted in (
            ("active turns", turns, rack.active_turns.loads),
            ("turns", turns, [len(there) for there in rack.turns]),
            ("prefill tokens", prefill, rack.prefill_tokens.loads),
            ("active tokens", active, rack.active_tokens.loads),
            ("session tokens", tokens, rack.session_tokens.loads),
        ):
            if found != counted:
                raise InvariantError(f"{name} are {found}, not {counted}")

    def _take(self, event: Event) -> None:
        match event:
            case TurnArrived():
                self._arrive(event)
            case PrefillEnded():
                turn = self._turn(event.turn_id)
                self._rack.end_prefill(turn)
                self._policy.prefill_ended(turn, event.num_cached_tokens, self._rack)
            case TurnEnded():
                self._end(event)
            case GapHinted() | SessionClosed():
                self._hear(event)
            case Woken():
                self._policy.woken(self._rack)
            case ReplicaDown() | ReplicaUp():
                self._mind(event)

    def _hear(self, event: GapHinted | SessionClosed) -> None:
        """Take in what is told of a session beside its turns; nothing if it is not known."""
        session = self._sessions.get(event.session_id)
        if session is None:
            return
        if isinstance(event, SessionClosed):
            session.closed = True
            self._forget_if_done(session)
        elif session.num_active_turns == 0:
            session.gap = event.gap

    def _mind(self, event: ReplicaDown | ReplicaUp) -> None:
        """Take a replica out of the rack, or back; once is enough."""
        rack, replica = self._rack, event.replica_id
        goes = isinstance(event, ReplicaDown)
        if goes == (replica in rack.down):
            return
        if goes:
            rack.take_down(replica)
        else:
            rack.bring_up(replica)
        if self._minding is not None:
            tell = self._minding.replica_down if goes else self._minding.replica_up
            tell(replica, rack)

    def _arrive(self, arrived: TurnArrived) -> None:
        if arrived.turn_id in self._turns:
            raise InvariantError(f"turn {arrived.turn_id} arrived twice")
        rack = self._rack
        num_tokens = arrived.num_prompt_tokens + arrived.num_output_tokens
        if num_tokens > self._fleet.max_context_tokens:
            refusal = Refuse(arrived.turn_id, num_tokens, self._fleet.max_context_tokens)
            rack.commands.append(refusal)
            return
        session = self._sessions.get(arrived.session_id)
        if session is None:
            session = self._open(arrived)
        session.closed = False
        session.num_active_turns += 1
        turn = Turn(arrived, session, rack.now_s)
        self._turns[arrived.turn_id] = turn
        self._policy.turn_arrived(turn, rack)

    def _open(self, arrived: TurnArrived) -> Session:
        session = Session(
            arrived.session_id,
            arrived.parent_id,
            arrived.tenant_id,
            self._rack.now_s,
            self._num_opened,
        )
        self._num_opened += 1
        self._sessions[arrived.session_id] = session
        return session

    def _turn(self, turn_id: TurnId) -> Turn:
        try:
            return self._turns[turn_id]
        except KeyError:
            raise InvariantError(f"turn {turn_id} goes on but was not active") from None

    def _end(self, event: TurnEnded) -> None:
        turn = self._turn(event.turn_id)
        del self._turns[event.turn_id]
        session, rack = turn.session, self._rack
        rack.end_turn(turn, event.num_context_tokens)
        session.num_active_turns -= 1
        session.num_turns_ended += 1
        session.last_ended_s = rack.now_s
        session.gap = event.gap
        self._policy.turn_ended(turn, rack)
        self._forget_if_done(session)

    def _forget_if_done(self, session: Session) -> None:
        if session.closed and session.num_active_turns == 0:
            self._rack.forget(session)
            del self._sessions[session.session_id]
            self._policy.session_closed(session, self._rack)
