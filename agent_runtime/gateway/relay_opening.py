"""The first half of a relayed call: whose it is, and what the scheduler is told of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent_runtime.backends.vllm_servers.session_chains import SessionChain
from agent_runtime.engine_call import EngineCall, ReplyFacts
from agent_runtime.errors import NoEngineError
from agent_runtime.gateway.relay_calls import CHAT_PATH, RelayedCall
from agent_runtime.gateway.session_directory import ChatSession, SessionDirectory
from agent_runtime.gateway.session_keys import Caller, SessionKeys, session_keys
from agent_runtime.gateway.token_counts import TokenCounts
from agent_runtime.prompts.chat_prompt import PromptPiece, chain_digests, render_chat
from agent_runtime.turns import TurnRequest, TurnRunner
from scheduler.ids import ReplicaId, TurnId

DEFAULT_OUTPUT_TOKENS = 512
"""What the scheduler plans with where a caller sets no limit; engines go on to the context's."""


@dataclass(frozen=True, slots=True)
class OpenedCall:
    """A call whose session is found.

    Attributes:
        call: As it came.
        keys: What it says of whose it is.
        session: Whose it is.
        pieces: Of its prompt.
        num_counted_tokens: Of its prompt, by the gateway.
        num_prompt_tokens: The same, as the engine should count.
        chain: Hashes of its prompt's blocks.
    """

    call: RelayedCall
    keys: SessionKeys
    session: ChatSession
    pieces: Sequence[PromptPiece]
    num_counted_tokens: int
    num_prompt_tokens: int
    chain: SessionChain


@dataclass(slots=True)
class RelayOpening:
    """Opens calls.

    Attributes:
        runner: Runs turns.
        sessions: Who is talking.
        num_up: Returns how many engines are up.
        counts: How far off the gateway's tokeniser is.
    """

    runner: TurnRunner
    sessions: SessionDirectory
    num_up: Callable[[], int]
    counts: TokenCounts = field(default_factory=TokenCounts)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def open(self, call: RelayedCall, caller: Caller) -> OpenedCall:
        """Find the session and bring its memory up to the prompt.

        Args:
            call: What came.
            caller: From whom.

        Raises:
            InvalidRequestError: A session id that can't be one.
        """
        now_s = caller.now_s
        for forgotten in self.sessions.forget_old(now_s):
            self.counts.forget(forgotten)
            self.runner.close_session(forgotten)
        pieces = call.pieces()
        digests = chain_digests(pieces) if call.path == CHAT_PATH else ()
        keys = session_keys(caller, session_id=call.session_key)
        session = self.sessions.find(keys, digests, now_s)
        num_counted = session.memory.open_prompt(pieces)
        limit = self.runner.max_context_tokens
        num_prompt = min(self.counts.estimate(session.session_id, num_counted), limit - 1)
        hashes = session.memory.hashes()
        if num_counted > 2 * limit:
            session.memory.clear()  # the engine refuses it; nobody must keep it
        chain = SessionChain(session.session_id, hashes)
        return OpenedCall(call, keys, session, pieces, num_counted, num_prompt, chain)

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
            avoid: Engines that failed it.

        Raises:
            NoEngineError: None is up; a turn would be held until one is.
        """
        if not self.num_up():
            raise NoEngineError
        limit = self.runner.max_context_tokens
        num_prompt = min(opened.num_prompt_tokens + num_generated, limit - 1)
        wanted = (opened.call.output_cap or DEFAULT_OUTPUT_TOKENS) - num_generated
        return TurnRequest(
            turn_id=TurnId(f"turn-{next(self._numbers)}"),
            session_id=opened.session.session_id,
            num_prompt_tokens=num_prompt,
            num_output_tokens=max(1, min(wanted, limit - num_prompt)),
            block_hashes=opened.chain,
            streams=opened.call.streams,
            priority=opened.call.priority,
            avoid=avoid,
            call=call,
        )

    def answered(self, opened: OpenedCall, call: EngineCall, facts: ReplyFacts) -> None:
        """Learn from a reply that is complete: the tokens, and how the conversation goes on."""
        session = opened.session
        if facts.num_prompt_tokens is not None:
            self.counts.learn(
                session.session_id, facts.num_prompt_tokens, opened.num_counted_tokens
            )
            session.turn_ended(facts.num_prompt_tokens, facts.num_cached_tokens or 0)
        if opened.call.path != CHAT_PATH or opened.keys.exact is not None:
            return
        message = call.reader.message()
        if message is not None and opened.pieces:
            reply = render_chat([{**message, "role": "assistant"}], ())
            digest = chain_digests([*opened.pieces, *reply])[-1]
            self.sessions.remember(session, opened.keys, digest)
