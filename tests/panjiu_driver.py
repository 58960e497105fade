"""A scheduler with Panjiu's policy, told of turns by hand and checked after every event."""

from collections.abc import Sequence

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Command, Dispatch
from scheduler.events import (
    GapCause,
    GapHint,
    PrefillEnded,
    ReplicaDown,
    ReplicaUp,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.panjiu.policy import Panjiu
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup
from tests.racks import cost_model

BLOCK = 64


def first_hash(session: str) -> int:
    """Where a session's own blocks begin."""
    return int.from_bytes(session.encode()[:4]) << 24


class Driver:
    """Hands events in and keeps what is dispatched."""

    def __init__(
        self, replicas: int, kv_tokens: int, settings: PanjiuSettings | None = None
    ) -> None:
        setup = PolicySetup(ReplicaFleet(replicas, kv_tokens), cost_model())
        self.policy = Panjiu(setup, settings)
        self.scheduler = ClusterScheduler(setup.fleet, self.policy)
        self.where: dict[str, int] = {}  # of turns dispatched and not lost
        self.sent_s: dict[str, float] = {}
        self.downs: set[int] = set()
        self.num_turns: dict[str, int] = {}
        self.now_s = 0.0

    def _do(self, commands: Sequence[Command]) -> Sequence[Command]:
        for command in commands:
            if isinstance(command, Dispatch):
                assert command.replica_id not in self.downs, "dispatched to a dead replica"
                assert command.turn_id not in self.where, "dispatched twice"
                self.where[command.turn_id] = command.replica_id
                self.sent_s[command.turn_id] = self.now_s
        self.policy.check_invariants()
        self.scheduler.check_invariants()
        return commands

    def arrive(self, session: str, prompt: int, shared: int = 0) -> str:
        """A turn comes; its first ``shared`` blocks are everybody's."""
        number = self.num_turns[session] = self.num_turns.get(session, 0) + 1
        own = first_hash(session)
        hashes = [*range(1, shared + 1), *range(own + shared, own + prompt // BLOCK)]
        turn = f"{session}#{number}"
        self.say(turn, session, hashes, prompt)
        return turn

    def say(
        self, turn: str, session: str, hashes: Sequence[int], prompt: int = 0
    ) -> Sequence[Command]:
        """A turn comes with a chain of its own."""
        num_tokens = prompt or len(hashes) * BLOCK + 1
        event = TurnArrived(TurnId(turn), SessionId(session), num_tokens, 10, block_hashes=hashes)
        return self._do(self.scheduler.handle(event, self.now_s))

    def prefill(self, turn: str) -> None:
        self._do(self.scheduler.handle(PrefillEnded(TurnId(turn), 0), self.now_s))

    def end(self, turn: str, tokens: int, gap: GapHint | None = None) -> Sequence[Command]:
        event = TurnEnded(TurnId(turn), tokens, gap or GapHint(GapCause.TOOL))
        return self._do(self.scheduler.handle(event, self.now_s))

    def run(self, session: str, prompt: int, gap: GapHint | None = None, shared: int = 0) -> int:
        """A turn comes, runs and ends; return where."""
        turn = self.arrive(session, prompt, shared)
        self.wake()
        self.prefill(turn)
        self.end(turn, prompt + 10, gap)
        return self.where[turn]

    def wake(self, after_s: float = 0.1) -> None:
        self.now_s += after_s
        while (wake_s := self.scheduler.next_wake_s) is not None and wake_s <= self.now_s:
            self._do(self.scheduler.handle(Woken(), self.now_s))

    def close(self, session: str) -> None:
        self._do(self.scheduler.handle(SessionClosed(SessionId(session)), self.now_s))

    def down(self, replica: int) -> list[str]:
        """A replica is lost; return its turns, which end."""
        self.downs.add(replica)
        self._do(self.scheduler.handle(ReplicaDown(ReplicaId(replica)), self.now_s))
        lost = [turn for turn, where in self.where.items() if where == replica]
        for turn in lost:
            del self.where[turn]
        return lost

    def up(self, replica: int) -> None:
        self.downs.discard(replica)
        self._do(self.scheduler.handle(ReplicaUp(ReplicaId(replica)), self.now_s))
