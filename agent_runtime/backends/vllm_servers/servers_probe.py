"""What the scheduler is told of real engines: their metrics, and what their KV events add up to."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.backends.sent_contexts import SentContexts
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.kv_residency import KvResidency
from agent_runtime.backends.vllm_servers.session_chains import ChainIndex, SessionChain
from agent_runtime.backends.vllm_servers.token_counts import TokenCounts
from scheduler.ids import ReplicaId, SessionId


class ServersProbe:
    """A ``ReplicaProbe``.

    Of engines that publish no events it tells what was sent there, as much as their KV holds.

    Args:
        fleet: The engines.

    Attributes:
        residency: Of those that publish events.
        block_size_tokens: Of a KV block; known once an engine has said.
        counts: How many tokens engines count where the gateway counts others.
    """

    def __init__(self, fleet: EngineFleet) -> None:
        self._fleet = fleet
        self._chains = ChainIndex()
        self.residency = KvResidency(len(fleet.slots), self._chains.knows)
        self.block_size_tokens = 1
        self.counts = TokenCounts()
        self._sent = [SentContexts() for _ in fleet.slots]

    def num_waiting(self, replica_id: ReplicaId) -> int:
        """Return vLLM's ``num_requests_waiting``, a second old at most."""
        return self._fleet.slots[replica_id].metrics.num_waiting

    def num_running(self, replica_id: ReplicaId) -> int:
        """Return vLLM's ``num_requests_running``, a second old at most."""
        return self._fleet.slots[replica_id].metrics.num_running

    def kv_usage(self, replica_id: ReplicaId) -> float:
        """Return vLLM's ``kv_cache_usage_perc``, a second old at most."""
        return self._fleet.slots[replica_id].metrics.kv_usage

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        """Return how many leading blocks of a turn's prompt are in an engine's HBM."""
        return self.num_cached_tokens(replica_id, block_hashes) // self.block_size_tokens

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        """Return how many blocks go on from there in its host's memory."""
        found = self._found(block_hashes)
        if found is None:
            return 0
        return self.residency.num_host_tokens(replica_id, *found) // self.block_size_tokens

    def num_cached_tokens(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        """Return how many leading tokens of a turn's prompt are in an engine's HBM."""
        found = self._found(block_hashes)
        if found is None:
            return 0
        session_id, limit_tokens = found
        if not self._fleet.slots[replica_id].has_events:
            return int(min(self._sent[replica_id].num_tokens(session_id), limit_tokens))
        return self.residency.num_cached_tokens(replica_id, session_id, limit_tokens)

    def turn_sent(self, block_hashes: Sequence[int]) -> None:
        """Note that a turn goes to an engine."""
        if isinstance(block_hashes, SessionChain):
            self._chains.remember(block_hashes)

    def turn_ended(
        self, replica_id: ReplicaId, session_id: SessionId, num_context_tokens: int
    ) -> None:
        """Note what a turn left behind on an engine."""
        room = self._fleet.slots[replica_id].metrics.kv_tokens
        self._sent[replica_id].note(session_id, num_context_tokens, room)

    def replica_lost(self, replica_id: ReplicaId) -> None:
        """Note that an engine's KV is gone."""
        self.residency.clear(replica_id)
        self._sent[replica_id] = SentContexts()

    def forget(self, session_id: SessionId) -> None:
        """Forget a session."""
        self.residency.forget(session_id)
        self._chains.forget(session_id)
        self.counts.forget(session_id)
        for sent in self._sent:
            sent.forget(session_id)

    def _found(self, block_hashes: Sequence[int]) -> tuple[SessionId, float] | None:
        """Return whose context a turn's prompt begins like, and for how many tokens."""
        if not isinstance(block_hashes, SessionChain):
            return None
        like = self._chains.likeness(block_hashes)
        if like is None:
            return None
        if like.is_whole and like.session_id == block_hashes.session_id:
            return like.session_id, float("inf")
        counted = like.num_blocks * self.block_size_tokens
        return like.session_id, counted * self.counts.scale(like.session_id)
