"""A scheduler under one policy, told in a few words what happens; its engines are imaginary."""

from collections.abc import Sequence

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Command, Dispatch, Refuse
from scheduler.events import (
    NO_HINT,
    Event,
    GapHint,
    PrefillEnded,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.policies import make_policy
from tests.racks import policy_setup

CAPACITY = 10_000


class Probe:
    """Replicas that report what a test has set."""

    def __init__(self) -> None:
        self.usage = 0.0
        self.waiting = 0
        self.cached_blocks = 0

    def num_waiting(self, replica_id: ReplicaId) -> int:
        return self.waiting

    def num_running(self, replica_id: ReplicaId) -> int:
        return 0

    def kv_usage(self, replica_id: ReplicaId) -> float:
        return self.usage

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return self.cached_blocks

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return 0


class Fleet:
    """A scheduler under one policy, and what it has done."""

    def __init__(
        self, policy: str, num_replicas: int = 1, host: int = 0, probe: Probe | None = None
    ) -> None:
        setup = policy_setup(num_replicas, CAPACITY, host)
        self.scheduler = ClusterScheduler(setup.fleet, make_policy(policy, setup), probe=probe)
        self.now_s = 0.0
        self.turns: dict[str, int] = {}
        self.commands: list[Command] = []

    def arrive(
        self, session: str, prompt: int = 1000, at_s: float | None = None, blocks: int = 0
    ) -> None:
        """Send a session's next turn."""
        self._to(at_s)
        self.turns[session] = self.turns.get(session, 0) + 1
        event = TurnArrived(
            TurnId(self._turn(session)),
            SessionId(session),
            prompt,
            100,
            block_hashes=range(blocks),
        )
        self._do(event)

    def prefill(self, session: str, cached: int = 0, at_s: float | None = None) -> None:
        """Give its turn the first token."""
        self._to(at_s)
        self._do(PrefillEnded(TurnId(self._turn(session)), cached))

    def end(
        self, session: str, tokens: int = 1000, gap: GapHint = NO_HINT, at_s: float | None = None
    ) -> None:
        """End its turn."""
        self._to(at_s)
        self._do(TurnEnded(TurnId(self._turn(session)), tokens, gap))

    def close(self, session: str) -> None:
        """End the session."""
        self._do(SessionClosed(SessionId(session)))

    def wait(self, until_s: float) -> None:
        """Let time pass, with the wake-ups asked for."""
        self._to(until_s)

    def replica_of(self, session: str) -> int | None:
        """Return where its latest turn runs; None while it is held."""
        turn = self._turn(session)
        for command in reversed(self.commands):
            if isinstance(command, Dispatch) and command.turn_id == turn:
                return command.replica_id
        return None

    def priority_of(self, session: str) -> int:
        """Return the priority of its latest turn."""
        turn = self._turn(session)
        (found,) = [c for c in self.commands if isinstance(c, Dispatch) and c.turn_id == turn]
        return found.priority

    def orders(self, kind: type[Command]) -> list[str]:
        """Return the sessions that commands of a kind named, in order."""
        return [
            command.session_id
            for command in self.commands
            if isinstance(command, kind) and not isinstance(command, Dispatch | Refuse)
        ]

    def _turn(self, session: str) -> str:
        return f"{session}#{self.turns[session]}"

    def _to(self, at_s: float | None) -> None:
        if at_s is None:
            return
        while (wake_s := self.scheduler.next_wake_s) is not None and wake_s <= at_s:
            self.now_s = max(self.now_s, wake_s)
            self._do(Woken())
        self.now_s = at_s

    def _do(self, event: Event) -> None:
        self.commands += self.scheduler.handle(event, self.now_s)
