"""A turn as it crosses the runtime: what is asked, and what comes back while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol, Self

import msgspec

from agent_runtime.engine_call import EngineCall
from scheduler.events import NO_HINT, NO_TENANT, GapHint
from scheduler.ids import ReplicaId, SessionId, TenantId, TurnId
from scheduler.session_view import SessionView


class TurnRequest(msgspec.Struct, frozen=True):
    """One model call of one session, already tokenised.

    Attributes:
        turn_id: Unique in the runtime's life.
        session_id: Whose turn it is.
        num_prompt_tokens: The whole context, >= 1.
        num_output_tokens: Tokens to generate, >= 1.
        block_hashes: Chained hashes of the leading full KV blocks of prompt + output.
        gap: What the session does once the turn has ended, as far as its reply will tell.
        streams: Whether progress is wanted as it happens; else that of the first and the last
            token is enough.
        parent_id: The session that started this one, for a sub-agent's turns.
        tenant_id: Whose session it is.
        priority: Smaller is more urgent.
        deadline_s: When the session should be done, on the runtime's clock.
        avoid: Replicas that just failed it.
        call: What to ask a real engine; emulated ones need none.
        token_ids: Of prompt + output, for engines that tell what their blocks hold.
        names_session: Whether the caller named the session; else it was found by its messages.
        max_output_tokens: What the caller allows, if it said.
        cache_salt: What keeps its KV apart from others'; None for nothing.
    """

    turn_id: TurnId
    session_id: SessionId
    num_prompt_tokens: int
    num_output_tokens: int
    block_hashes: Sequence[int]
    streams: bool = True
    gap: GapHint = NO_HINT
    parent_id: SessionId | None = None
    tenant_id: TenantId = NO_TENANT
    priority: int = 0
    deadline_s: float | None = None
    avoid: frozenset[ReplicaId] = frozenset()
    call: EngineCall | None = None
    token_ids: Sequence[int] = ()
    names_session: bool = False
    max_output_tokens: int | None = None
    cache_salt: str | None = None


class TurnOutcome(msgspec.Struct, frozen=True):
    """What an engine's own reply tells once it is complete.

    Attributes:
        num_context_tokens: Prompt and output, as the engine counted.
        gap: What the session does next.
    """

    num_context_tokens: int
    gap: GapHint = NO_HINT


class TurnProgress(msgspec.Struct, frozen=True, gc=False):
    """What one or more engine steps gave a turn; made for every token, so it is cheap to make.

    Attributes:
        num_new_tokens: Output tokens since the last progress, >= 1; real engines also send bytes
            without any.
        num_cached_tokens: Prompt tokens served from the prefix cache when the turn was admitted.
        finished: Whether these were the last tokens.
        data: What a real engine sent, to be passed on.
        outcome: With the last progress of a real engine: what was not known before.
        due_s: When the first of them was due, on the clock of an emulated engine.
    """

    num_new_tokens: int
    num_cached_tokens: int
    finished: bool
    due_s: float | None = None
    data: bytes = b""
    outcome: TurnOutcome | None = None


class PlacementReason(StrEnum):
    """Why a turn runs where it does, in a word."""

    NEW = "new"
    HOME = "home"
    MOVED = "moved"


class TurnPlacement(msgspec.Struct, frozen=True):
    """What was decided about a turn when it was dispatched.

    Attributes:
        replica_id: Where it runs.
        waited_s: How long it was held before.
        num_expected_cached_tokens: Of its prompt, by the scheduler's reckoning.
        reason: A session's first turn, at its home, or elsewhere.
    """

    replica_id: ReplicaId
    waited_s: float
    num_expected_cached_tokens: int
    reason: PlacementReason


class RunningTurn(Protocol):
    """A turn under way: its progress as it comes, until ``finished``."""

    @property
    def placement(self) -> TurnPlacement:
        """What was decided about it."""
        ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> TurnProgress: ...

    def end_output(self, num_tokens: int) -> None:
        """Let it stop at so many output tokens, or as soon after as it can.

        For turns whose length is not known when they start; they ask for the most they may need.
        """
        ...


class TurnRunner(Protocol):
    """What the gateway needs of the runtime."""

    @property
    def block_size_tokens(self) -> int:
        """Tokens per KV block that ``TurnRequest.block_hashes`` count in."""
        ...

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt + output that one replica can hold."""
        ...

    def now_s(self) -> float:
        """Return the time on the runtime's clock, which ``TurnRequest.deadline_s`` is on."""
        ...

    def open_turn(self, request: TurnRequest) -> AbstractAsyncContextManager[RunningTurn]:
        """Run a turn; leaving the context before it finished aborts it and frees its KV.

        Raises:
            ContextTooLongError: On entry; prompt + output exceed ``max_context_tokens``.
            BackendError: On entry or while iterating; the turn is over.
        """
        ...

    def close_session(self, session_id: SessionId) -> None:
        """Forget a session: its KV is worth nothing any more. Unknown ids are ignored."""
        ...

    def hint_gap(self, session_id: SessionId, gap: GapHint) -> None:
        """Tell more of the tool gap a session is in; not in one, or unknown, nothing happens."""
        ...

    def session_view(self, session_id: SessionId) -> SessionView | None:
        """Return what the scheduler knows of a session, None if it knows nothing."""
        ...
