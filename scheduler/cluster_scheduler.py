"""The one brain: events in, commands out, O(log replicas) an event.

It knows sessions, where they live and how loaded replicas are; a policy decides. It does not know
whether a replica is real, and it never waits: a driver tells it the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler.commands import Command, Dispatch, Refuse
from scheduler.decision import Decision
from scheduler.errors import InvariantError
from scheduler.events import Event, SessionClosed, TurnArrived, TurnEnded
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.placement.policy import PlacementPolicy
from scheduler.rack_load import RackLoad
from scheduler.session import Session


@dataclass(frozen=True, slots=True)
class ReplicaFleet:
    """What there is to place turns on, every replica alike.

    Attributes:
        num_replicas: Replicas, ids from 0.
        max_context_tokens: Longest prompt + output one replica holds.
    """

    num_replicas: int
    max_context_tokens: int


class ClusterScheduler:
    """Places the turns of sessions on replicas.

    Args:
        fleet: The replicas.
        policy: Chooses among them.
        on_decision: Told of every event once it is handled.

    Invariant: ``rack.active_turns`` counts the turns dispatched and not ended;
        ``rack.session_tokens`` sums the context of the live sessions at home on each replica.
    """

    def __init__(
        self,
        fleet: ReplicaFleet,
        policy: PlacementPolicy,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        self._fleet = fleet
        self._policy = policy
        self._on_decision = on_decision
        self._rack = RackLoad(fleet.num_replicas)
        self._sessions: dict[SessionId, Session] = {}
        self._turns: dict[TurnId, tuple[Session, ReplicaId]] = {}
        self._now_s = 0.0

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt + output that one replica holds."""
        return self._fleet.max_context_tokens

    @property
    def num_sessions(self) -> int:
        """Sessions opened and not closed."""
        return len(self._sessions)

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
        if now_s < self._now_s:
            raise InvariantError(f"time went back from {self._now_s} to {now_s}")
        self._now_s = now_s
        commands = self._commands(event)
        if self._on_decision is not None:
            self._on_decision(Decision(now_s, event, commands))
        return commands

    def check_invariants(self) -> None:
        """Raise if the counters contradict the sessions and turns. O(sessions + turns).

        Raises:
            InvariantError: Gives both counts, replica by replica.
        """
        turns = [0] * self._fleet.num_replicas
        tokens = [0] * self._fleet.num_replicas
        for _, replica in self._turns.values():
            turns[replica] += 1
        for session in self._sessions.values():
            if session.home is not None:
                tokens[session.home] += session.context_tokens
        if turns != self._rack.active_turns.loads:
            raise InvariantError(f"active turns are {turns}, not {self._rack.active_turns.loads}")
        if tokens != self._rack.session_tokens.loads:
            raise InvariantError(f"tokens are {tokens}, not {self._rack.session_tokens.loads}")

    def _commands(self, event: Event) -> Sequence[Command]:
        match event:
            case TurnArrived():
                return (self._place(event),)
            case TurnEnded():
                self._end(event)
            case SessionClosed():
                self._close(event)
        return ()

    def _place(self, turn: TurnArrived) -> Command:
        if turn.turn_id in self._turns:
            raise InvariantError(f"turn {turn.turn_id} arrived twice")
        num_tokens = turn.num_prompt_tokens + turn.num_output_tokens
        if num_tokens > self._fleet.max_context_tokens:
            return Refuse(turn.turn_id, num_tokens, self._fleet.max_context_tokens)
        session = self._sessions.get(turn.session_id)
        if session is None:
            session = Session(turn.session_id, turn.parent_id)
            self._sessions[turn.session_id] = session
        session.closed = False
        replica = self._policy.place(turn, session, self._rack)
        self._turns[turn.turn_id] = (session, replica)
        self._rack.active_turns.add(replica, 1)
        session.num_active_turns += 1
        self._settle(session, replica, turn.num_prompt_tokens)
        return Dispatch(turn.turn_id, replica)

    def _end(self, event: TurnEnded) -> None:
        try:
            session, replica = self._turns.pop(event.turn_id)
        except KeyError:
            raise InvariantError(f"turn {event.turn_id} ended but was not active") from None
        self._rack.active_turns.add(replica, -1)
        session.num_active_turns -= 1
        if session.home == replica:
            self._settle(session, replica, event.num_context_tokens)
        self._forget_if_done(session)

    def _close(self, event: SessionClosed) -> None:
        session = self._sessions.get(event.session_id)
        if session is not None:
            session.closed = True
            self._forget_if_done(session)

    def _forget_if_done(self, session: Session) -> None:
        if session.closed and session.num_active_turns == 0:
            if session.home is not None:
                self._rack.session_tokens.add(session.home, -session.context_tokens)
            del self._sessions[session.session_id]

    def _settle(self, session: Session, replica: ReplicaId, context_tokens: int) -> None:
        """Move a session's context to ``replica``."""
        if session.home is not None:
            self._rack.session_tokens.add(session.home, -session.context_tokens)
        session.home = replica
        session.context_tokens = context_tokens
        self._rack.session_tokens.add(replica, context_tokens)
