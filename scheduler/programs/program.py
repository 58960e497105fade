"""An agent as its scheduler sees it: it reasons (a turn waits or runs) or acts (a tool runs)."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.ids import ReplicaId
from scheduler.rack import Rack
from scheduler.session import Session, Turn


class Program:
    """What policies of this package keep of a session.

    Attributes:
        replica: Where its turns run; None while it is assigned to none.
        is_paused: Its turns are held. Whether it keeps a replica then is the policy's choice.
        is_marked: It is to be paused when the turn under way ends.
        context_tokens: Of its latest turn: the prompt while it reasons, all of it once it acts.
        acting_since_s: When its latest turn ended; of use only while it acts.
        held: Its turns that are not dispatched, oldest first.
        num_running: Its turns that are.

    Invariant: it reasons exactly while it has turns, held or running.
    """

    __slots__ = (
        "acting_since_s",
        "context_tokens",
        "held",
        "is_marked",
        "is_paused",
        "num_running",
        "replica",
        "session",
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.replica: ReplicaId | None = None
        self.is_paused = False
        self.is_marked = False
        self.context_tokens = 0
        self.acting_since_s = session.arrived_s
        self.held: dict[Turn, None] = {}
        self.num_running = 0

    @property
    def is_reasoning(self) -> bool:
        """Whether a turn waits or runs; else a tool does, or a human thinks."""
        return self.num_running > 0 or bool(self.held)

    @property
    def held_since_s(self) -> float:
        """When its oldest held turn arrived; infinite without one."""
        return next((turn.arrived_s for turn in self.held), float("inf"))

    def run(self, rack: Rack, replica_id: ReplicaId, priority: int = 0) -> None:
        """Dispatch all its held turns to a replica, and stay there."""
        self.replica = replica_id
        for turn in self.held:
            rack.dispatch(turn, replica_id, priority=priority)
        self.num_running += len(self.held)
        self.held.clear()


class ProgramTable:
    """All programs, in the order in which their sessions came.

    Invariant: holds a program for every session that has arrived and is not forgotten.
    """

    __slots__ = ("_programs",)

    def __init__(self) -> None:
        self._programs: dict[Session, Program] = {}

    def __iter__(self) -> Iterator[Program]:
        return iter(self._programs.values())

    def __len__(self) -> int:
        return len(self._programs)

    def arrived(self, turn: Turn) -> Program:
        """Take in a turn, as held."""
        program = self._programs.get(turn.session)
        if program is None:
            program = self._programs[turn.session] = Program(turn.session)
        program.held[turn] = None
        program.context_tokens = turn.num_prompt_tokens
        return program

    def ended(self, turn: Turn, now_s: float) -> Program:
        """Take out a turn, run or withdrawn."""
        program = self._programs[turn.session]
        if turn.replica_id is None:
            del program.held[turn]
        else:
            program.num_running -= 1
            program.context_tokens = turn.session.context_tokens
        if not program.is_reasoning:
            program.acting_since_s = now_s
        return program

    def of(self, session: Session) -> Program:
        """Return the program of a session that has arrived."""
        return self._programs[session]

    def forget(self, session: Session) -> Program:
        """Take out a program whose session is over."""
        return self._programs.pop(session)

    def waiting(self) -> list[Program]:
        """Return those with held turns."""
        return [program for program in self._programs.values() if program.held]

    def any_reasoning(self) -> bool:
        """Return whether a turn waits or runs."""
        return any(program.is_reasoning for program in self._programs.values())
