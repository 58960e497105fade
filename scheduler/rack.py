"""The rack as policies see it and act on it: loads, what replicas report, and what to do.

A policy calls ``dispatch``, ``retain``, ``pull`` and so on; what it asked for leaves the scheduler
as commands, in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler.commands import Command, Dispatch, Drop, Pull, Release, Retain
from scheduler.errors import InvariantError
from scheduler.ids import ReplicaId
from scheduler.load_order import LoadOrder
from scheduler.receipt import Receipt
from scheduler.session import Session, Turn


@dataclass(frozen=True, slots=True)
class ReplicaFleet:
    """What there is to place turns on, every replica alike.

    Attributes:
        num_replicas: Replicas, ids from 0.
        max_context_tokens: Longest prompt + output one replica holds: its KV, in tokens.
        block_size_tokens: Tokens in a KV block.
        max_num_batched_tokens: New tokens in one step of an engine.
        host_kv_tokens: KV that the host memory behind one replica holds.
        retains_kv: Whether they keep, give up and pull KV when told to. Stock vLLM evicts by
            itself, so that what is where is only what replicas report.
    """

    num_replicas: int
    max_context_tokens: int
    block_size_tokens: int = 64
    max_num_batched_tokens: int = 8192
    host_kv_tokens: int = 0
    retains_kv: bool = True


class ReplicaProbe(Protocol):
    """What replicas report of themselves, e.g. at ``/metrics`` and in KV events."""

    def num_waiting(self, replica_id: ReplicaId) -> int:
        """Return vLLM's ``num_requests_waiting``."""
        ...

    def num_running(self, replica_id: ReplicaId) -> int:
        """Return vLLM's ``num_requests_running``."""
        ...

    def kv_usage(self, replica_id: ReplicaId) -> float:
        """Return vLLM's ``kv_cache_usage_perc``: the share of blocks that requests hold."""
        ...

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        """Return how many leading blocks of a chain are in its HBM."""
        ...

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        """Return how many blocks the host memory has beyond those in HBM."""
        ...


class Rack:
    """Loads to look at, and what can be done.

    Attributes:
        now_s: The time of the event that is handled.
        probe: What the replicas report; None where nobody listens.
        active_turns: Turns dispatched and not ended, per replica.
        session_tokens: Context of the live sessions whose home a replica is.
        prefill_tokens: Prompt tokens to compute of the turns dispatched and not yet prefilled.
        active_tokens: Context of the turns dispatched and not ended.
        turns: Those turns.
        down: Replicas that take no turns.
        commands: What was asked for since the driver last took it.
        receipts: Where policies say why; None where nobody listens.
    """

    __slots__ = (
        "active_tokens",
        "active_turns",
        "commands",
        "down",
        "fleet",
        "now_s",
        "num_replicas",
        "prefill_tokens",
        "probe",
        "receipts",
        "session_tokens",
        "turns",
    )

    def __init__(self, fleet: ReplicaFleet, probe: ReplicaProbe | None = None) -> None:
        self.fleet = fleet
        self.num_replicas = fleet.num_replicas
        self.probe = probe
        self.now_s = 0.0
        self.active_turns = LoadOrder(fleet.num_replicas)
        self.session_tokens = LoadOrder(fleet.num_replicas)
        self.prefill_tokens = LoadOrder(fleet.num_replicas)
        self.active_tokens = LoadOrder(fleet.num_replicas)
        self.turns: list[dict[Turn, None]] = [{} for _ in range(fleet.num_replicas)]
        self.down: set[ReplicaId] = set()
        self.commands: list[Command] = []
        self.receipts: list[Receipt] | None = None

    def dispatch(
        self, turn: Turn, replica_id: ReplicaId, *, num_cached_tokens: int = 0, priority: int = 0
    ) -> None:
        """Run a held turn on a replica, or on the least loaded one where that one is shunned.

        Args:
            turn: Held.
            replica_id: Where.
            num_cached_tokens: How much of its prompt is expected to be there.
            priority: For engines that look at it; smaller goes first.

        Raises:
            InvariantError: It was dispatched before.
        """
        if turn.replica_id is not None:
            raise InvariantError(f"turn {turn.turn_id} was dispatched twice")
        if replica_id in self.down or turn.avoid:
            open_id = self._open_replica(turn, replica_id)
            if open_id != replica_id:
                replica_id, num_cached_tokens = open_id, 0
        session = turn.session
        turn.replica_id = replica_id
        turn.dispatched_s = self.now_s
        turn.num_expected_cached_tokens = min(num_cached_tokens, turn.num_prompt_tokens)
        session.wait_s += self.now_s - turn.arrived_s
        self.active_turns.add(replica_id, 1)
        self.prefill_tokens.add(
            replica_id, turn.num_prompt_tokens - turn.num_expected_cached_tokens
        )
        self.active_tokens.add(replica_id, turn.num_prompt_tokens)
        self.turns[replica_id][turn] = None
        self.settle(session, replica_id, turn.num_prompt_tokens)
        self.commands.append(
            Dispatch(turn.turn_id, replica_id, priority, turn.num_expected_cached_tokens)
        )

    def shuns(self, turn: Turn, replica_id: ReplicaId) -> bool:
        """Return whether a turn must not run on a replica: it is down, or just failed the turn."""
        if replica_id in self.down:
            return True
        return replica_id in turn.avoid and any(
            other not in self.down and other not in turn.avoid for other in range(self.num_replicas)
        )

    def retain(self, session: Session, replica_id: ReplicaId) -> None:
        """Keep the session's KV there until it is released or dropped."""
        self.commands.append(Retain(session.session_id, replica_id))

    def release(self, session: Session, replica_id: ReplicaId) -> None:
        """Keep it no longer."""
        self.commands.append(Release(session.session_id, replica_id))

    def drop(self, session: Session, replica_id: ReplicaId) -> None:
        """Give up its HBM there."""
        self.commands.append(Drop(session.session_id, replica_id))

    def pull(
        self, session: Session, source_id: ReplicaId, replica_id: ReplicaId, ready_s: float
    ) -> None:
        """Copy its KV from one replica to another; it is there at ``ready_s``."""
        self.commands.append(Pull(session.session_id, source_id, replica_id, ready_s))

    def take_down(self, replica_id: ReplicaId) -> None:
        """Place no turns on a replica; those that run there end one by one."""
        self.down.add(replica_id)
        for order in self._orders():
            order.close(replica_id)

    def bring_up(self, replica_id: ReplicaId) -> None:
        """Place turns there again."""
        self.down.discard(replica_id)
        for order in self._orders():
            order.open(replica_id)

    def _open_replica(self, turn: Turn, wanted: ReplicaId) -> ReplicaId:
        """Return the replica that was wanted, or the least loaded that the turn doesn't shun."""
        if not self.shuns(turn, wanted):
            return wanted
        least = self.active_tokens.least()
        if not self.shuns(turn, least):
            return least
        loads = self.active_tokens.loads
        replicas = map(ReplicaId, range(self.num_replicas))
        others = [replica for replica in replicas if not self.shuns(turn, replica)]
        return min(others, key=lambda replica: (loads[replica], replica)) if others else least

    def _orders(self) -> tuple[LoadOrder, ...]:
        return self.active_turns, self.session_tokens, self.prefill_tokens, self.active_tokens

    def end_prefill(self, turn: Turn) -> None:
        """Take note of a turn's first token, or its end without one; once is enough."""
        if turn.replica_id is not None and not turn.is_prefilled:
            turn.is_prefilled = True
            num_tokens = turn.num_prompt_tokens - turn.num_expected_cached_tokens
            self.prefill_tokens.add(turn.replica_id, -num_tokens)

    def end_turn(self, turn: Turn, num_context_tokens: int) -> None:
        """Take a dispatched turn off its replica."""
        replica = turn.replica_id
        if replica is None:
            return
        self.end_prefill(turn)
        self.active_turns.add(replica, -1)
        self.active_tokens.add(replica, -turn.num_prompt_tokens)
        del self.turns[replica][turn]
        turn.session.service_s += self.now_s - turn.dispatched_s
        if turn.session.home == replica:
            self.settle(turn.session, replica, num_context_tokens)

    def settle(self, session: Session, replica_id: ReplicaId, context_tokens: int) -> None:
        """Move a session's context to a replica."""
        if session.home == replica_id:
            self.session_tokens.add(replica_id, context_tokens - session.context_tokens)
        else:
            self.forget(session)
            session.home = replica_id
            self.session_tokens.add(replica_id, context_tokens)
        session.context_tokens = context_tokens

    def forget(self, session: Session) -> None:
        """Count a session's context nowhere."""
        if session.home is not None:
            self.session_tokens.add(session.home, -session.context_tokens)
