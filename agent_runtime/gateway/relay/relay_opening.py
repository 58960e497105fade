"""The first half of a relayed call: whose it is, and what the scheduler is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from agent_runtime.backends.vllm_servers.session_chains import SessionChain
from agent_runtime.backends.vllm_servers.token_counts import TokenCounts
from agent_runtime.engine_call import EngineCall, ReplyFacts
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.relay.relayed_api import History
from agent_runtime.gateway.relay.relayed_call import RelayedCall
from agent_runtime.gateway.running_answer import tell_parent
from agent_runtime.gateway.session_directory import ChatSession
from agent_runtime.gateway.turn_terms import TurnTerms, turn_terms
from agent_runtime.turns import TurnRequest, TurnRunner
from scheduler.events import NO_HINT, GapHint
from scheduler.ids import ReplicaId

DEFAULT_OUTPUT_TOKENS = 512
"""What the scheduler plans with where a caller sets no limit; engines go on to the context's."""


class OpenedCall(msgspec.Struct, frozen=True):
    """A call whose session is found.

    Attributes:
        call: As it came.
        session: Whose it is.
        terms: What its turns ask of the scheduler.
        history: By what its prompt is known.
        num_counted_tokens: Of its prompt, by the gateway.
        num_prompt_tokens: The same, as the engine should count.
        chain: Hashes of its prompt's blocks.
        salt: What keeps its KV apart from others'.
        arrived_s: When it came, on the runtime's clock.
    """

    call: RelayedCall
    session: ChatSession
    terms: TurnTerms
    history: History
    num_counted_tokens: int
    num_prompt_tokens: int
    chain: SessionChain
    salt: str | None
    arrived_s: float


@dataclass(frozen=True, slots=True)
class RelayOpening:
    """Opens calls.

    Attributes:
        opening: Finds sessions.
        unready: Returns why engines take no turns; None while they do.
        replicas: All that there may be.
        counts: How far off the gateway's tokeniser is.
    """

    opening: Opening
    unready: Callable[[], BackendError | None]
    replicas: frozenset[ReplicaId]
    counts: TokenCounts

    @property
    def runner(self) -> TurnRunner:
        """What runs turns."""
        return self.opening.runner

    async def open(self, call: RelayedCall, arrived_s: float) -> OpenedCall:
        """Find the session and bring its memory up to the prompt.

        Raises:
            InvalidRequestError: A session id that can't be one, or messages that can't be read.
            UnknownModelError: A model that no engine serves.
            SessionStateError: The session is paused.
            TooManyRequestsError: It is new, and as many wait as may be.
        """
        if call.model is not None:
            self.opening.models.check(call.model)
        prompt = call.prompt()
        # Who names a session is not looked for by what was said.
        digests = prompt.history.digests() if call.keys.exact is None else ()
        parent_id = call.hints.parent_session_id
        session = await self.opening.find_session(call.keys, digests, parent_id)
        memory, limit = session.memory, self.runner.max_context_tokens
        salt = self.opening.salt(call.keys)
        try:
            num_counted = prompt.open_in(memory, salt, 2 * limit)
        except RequestError:
            self.opening.refused(session)
            raise
        chain = SessionChain(session.session_id, memory.hashes())
        if num_counted > 2 * limit:
            memory.clear()  # the engine refuses it; nobody must keep it
        num_prompt = self.counts.estimate(session.session_id, num_counted)
        return OpenedCall(
            call,
            session,
            turn_terms(call.hints, session, arrived_s),
            prompt.history,
            num_counted,
            min(num_prompt, limit - 1),
            chain,
            salt,
            arrived_s,
        )

    def turn_request(
        self,
        opened: OpenedCall,
        call: EngineCall,
        *,
        num_generated: int = 0,
        avoid: frozenset[ReplicaId] = frozenset(),
    ) -> TurnRequest:
        """Return a fresh turn that has an engine answer the call.

        Args:
            opened: The call.
            call: What the engine is asked.
            num_generated: Tokens of the reply that another engine generated.
            avoid: Engines that failed it, or don't understand it.

        Raises:
            BackendError: No engine takes turns; one would be held until it does.
        """
        error = self.unready()
        if error is not None:
            raise error
        terms, limit = opened.terms, self.runner.max_context_tokens
        lease_s = opened.call.hints.lease_s
        num_prompt = min(opened.num_prompt_tokens + num_generated, limit - 1)
        wanted = (opened.call.output_cap or DEFAULT_OUTPUT_TOKENS) - num_generated
        if terms.parent_id is not None:
            tell_parent(self.runner, terms.parent_id)
        return TurnRequest(
            turn_id=self.opening.next_turn_id(),
            session_id=opened.session.session_id,
            num_prompt_tokens=num_prompt,
            num_output_tokens=max(1, min(wanted, limit - num_prompt)),
            block_hashes=opened.chain,
            streams=opened.call.streams,
            gap=GapHint(lease_s=lease_s) if lease_s else NO_HINT,
            parent_id=terms.parent_id,
            tenant_id=terms.tenant_id,
            priority=terms.priority,
            deadline_s=terms.deadline_s,
            avoid=avoid,
            call=call,
            cache_salt=opened.salt,
        )

    def answered(self, opened: OpenedCall, call: EngineCall, facts: ReplyFacts) -> None:
        """Learn from a reply that is complete: the tokens, and how the conversation goes on."""
        session, keys = opened.session, opened.call.keys
        if facts.num_prompt_tokens is not None:
            self.counts.learn(
                session.session_id, facts.num_prompt_tokens, opened.num_counted_tokens
            )
        num_prompt, num_cached = facts.num_prompt_tokens or 0, facts.num_cached_tokens or 0
        self.opening.sessions.turn_ended(session, num_prompt, num_cached)
        if keys.exact is not None:
            return
        message = call.reader.message()
        digest = None if message is None else opened.history.digest_with(message)
        if digest is not None:
            self.opening.sessions.remember(session, keys, digest)
