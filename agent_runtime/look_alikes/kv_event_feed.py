"""One engine's KV events on their way out: whose blocks they were, what they hold, in which order.

As in vLLM, what a scheduling step changed is one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agent_runtime.backends.kv_event_wire import NOT_KNOWN, EventBatch, StoredContent, wire_events
from agent_runtime.turns import TurnRequest
from hw_model.engine.engine_core import TokensGenerated
from hw_model.engine.kv_events import BlocksStored, KvEventLog
from hw_model.engine.request import EngineRequest


class BatchPublisher(Protocol):
    """Where batches go."""

    def publish(self, batch: EventBatch) -> None:
        """Send a batch to whoever listens."""
        ...

    def source(self) -> dict[str, object]:
        """Return how to listen, as vLLM's ``/kv_event_sources`` tells it."""
        ...


class KvEventFeed:
    """Passes on what an engine's log notes; a ``ReplicaObserver``.

    Args:
        log: Of the engine.
        publisher: Where its events go.
        block_size_tokens: Of the engine.
        epoch_s: Seconds since 1970, for the batches' time.

    Invariant: ``_turns`` holds every turn on the engine by its request's id.
    """

    def __init__(
        self,
        log: KvEventLog,
        publisher: BatchPublisher,
        *,
        block_size_tokens: int,
        epoch_s: Callable[[], float],
    ) -> None:
        self._log = log
        self._publisher = publisher
        self._block_size = block_size_tokens
        self._epoch_s = epoch_s
        self._turns: dict[str, TurnRequest] = {}

    def submitted(self, request: TurnRequest, engine_request: EngineRequest, now_s: float) -> None:  # noqa: ARG002
        """Remember what its blocks will hold."""
        self._turns[engine_request.request_id] = request

    def stepped(self, at_s: float, generated: Sequence[TokensGenerated]) -> None:  # noqa: ARG002
        """Pass on what the steps changed."""
        self._pass_on()
        for tokens in generated:
            if tokens.finished:
                self._turns.pop(tokens.request_id, None)

    def aborted(self, engine_request: EngineRequest, now_s: float) -> None:  # noqa: ARG002
        """Pass on what it had stored so far, and forget it."""
        self._pass_on()
        self._turns.pop(engine_request.request_id, None)

    def _pass_on(self) -> None:
        if not (events := self._log.take()):
            return
        wired = wire_events(events, block_size_tokens=self._block_size, content_of=self._content_of)
        self._publisher.publish(EventBatch(self._epoch_s(), list(wired), 0))

    def _content_of(self, stored: BlocksStored) -> StoredContent:
        turn = self._turns.get(stored.owner or "")
        if turn is None:
            return NOT_KNOWN
        start = stored.start * self._block_size
        stop = start + len(stored.hashes) * self._block_size
        return StoredContent(
            turn.token_ids[start:stop],
            turn.session_id if turn.names_session else None,
            turn.cache_salt if start == 0 else None,
        )
