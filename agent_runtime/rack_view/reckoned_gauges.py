"""What replicas must have reported, reckoned from decisions alone: for logs, which lack it."""

from __future__ import annotations

from agent_runtime.backends.sent_contexts import SentContexts
from agent_runtime.rack_view.gauges import permille
from agent_runtime.rack_view.messages import Health, ReplicaRow
from scheduler.commands import Command, Dispatch, Drop, Pull
from scheduler.decision import Decision
from scheduler.events import ReplicaDown, ReplicaUp, TurnArrived, TurnEnded
from scheduler.ids import ReplicaId, SessionId, TurnId


class ReckonedGauges:
    """A ``ReplicaGauges`` of an event log.

    A replica holds the contexts of the sessions that ran there, were copied there and were not
    dropped; when its KV is full, the one that is longest unused goes. What sessions share is
    counted for each, so it is full sooner than it was. Turns count as running from their dispatch
    on, since nothing tells when an engine took them in.

    Args:
        num_replicas: How many.
        kv_tokens: That one holds.
    """

    def __init__(self, num_replicas: int, kv_tokens: int) -> None:
        self._kv_tokens = kv_tokens
        self._arrived: dict[TurnId, tuple[SessionId, int]] = {}
        self._running: dict[TurnId, tuple[SessionId, int, ReplicaId]] = {}
        self._contexts = [SentContexts() for _ in range(num_replicas)]
        self._num_running = [0] * num_replicas
        self._active_tokens = [0] * num_replicas
        self._health = [Health.UP] * num_replicas

    def take(self, decision: Decision) -> None:
        """Take in a decision, before anybody reads."""
        match decision.event:
            case TurnArrived() as event:
                self._arrived[event.turn_id] = event.session_id, event.num_prompt_tokens
            case TurnEnded() as event:
                self._ended(event)
            case ReplicaDown(replica_id):
                self._health[replica_id] = Health.DOWN
                self._contexts[replica_id] = SentContexts()
            case ReplicaUp(replica_id):
                self._health[replica_id] = Health.UP
            case _:
                pass
        for command in decision.commands:
            self._carried_out(command)

    def read(self) -> list[ReplicaRow]:
        """Return a row a replica."""
        return [
            ReplicaRow(
                running,
                0,
                permille(max(contexts.total_tokens, active) / self._kv_tokens),
                permille(active / self._kv_tokens),
                int(health),
            )
            for running, contexts, active, health in zip(
                self._num_running, self._contexts, self._active_tokens, self._health, strict=True
            )
        ]

    def _carried_out(self, command: Command) -> None:
        match command:
            case Dispatch(turn_id=turn_id, replica_id=replica):
                arrived = self._arrived.pop(turn_id, None)
                if arrived is not None:
                    session_id, num_tokens = arrived
                    self._running[turn_id] = session_id, num_tokens, replica
                    self._num_running[replica] += 1
                    self._active_tokens[replica] += num_tokens
                    self._contexts[replica].note(session_id, num_tokens, self._kv_tokens)
            case Drop(session_id, replica):
                self._contexts[replica].forget(session_id)
            case Pull(session_id, source, replica, _):
                num_tokens = self._contexts[source].num_tokens(session_id)
                self._contexts[replica].note(session_id, num_tokens, self._kv_tokens)
            case _:
                pass

    def _ended(self, event: TurnEnded) -> None:
        self._arrived.pop(event.turn_id, None)
        running = self._running.pop(event.turn_id, None)
        if running is None:
            return
        session_id, num_tokens, replica = running
        self._num_running[replica] -= 1
        self._active_tokens[replica] -= num_tokens
        if self._health[replica] is Health.UP:
            self._contexts[replica].note(session_id, event.num_context_tokens, self._kv_tokens)
