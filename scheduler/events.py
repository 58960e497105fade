"""What the scheduler is told. Frozen values; time comes beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.ids import ReplicaId, SessionId, TenantId, TurnId

NO_TENANT = TenantId("")


class GapCause(StrEnum):
    """What a session does between two turns, as far as its last reply tells."""

    UNKNOWN = "unknown"
    TOOL = "tool"
    HUMAN = "human"
    CHILDREN = "children"


@dataclass(frozen=True, slots=True)
class GapHint:
    """What is known of a tool gap when it begins.

    Attributes:
        cause: Whom the session waits for.
        tools: Names of the tools that run, if they are known.
        expected_s: How long it takes, if the user says so; overrides what was learned.
        lease_s: How long the user asks that the KV be kept, whatever happens; within a quota.
    """

    cause: GapCause = GapCause.UNKNOWN
    tools: tuple[str, ...] = ()
    expected_s: float | None = None
    lease_s: float = 0.0


NO_HINT = GapHint()


@dataclass(frozen=True, slots=True)
class TurnArrived:
    """A session wants a model call. The first turn of an unknown session opens it.

    Attributes:
        num_prompt_tokens: The whole context.
        num_output_tokens: The most the call may generate.
        parent_id: The session that started this one, for a sub-agent's turns.
        block_hashes: Chained hashes, below 2**64, of the leading full KV blocks of the prompt, and
            of what is known of the output; must not change until the turn has ended.
        priority: Smaller is more urgent.
        deadline_s: When the session should be done, on the clock of the events.
        tenant_id: Whose session it is.
        avoid: Replicas that just failed it; it runs there only where no other is up.
    """

    turn_id: TurnId
    session_id: SessionId
    num_prompt_tokens: int
    num_output_tokens: int
    parent_id: SessionId | None = None
    block_hashes: Sequence[int] = ()
    priority: int = 0
    deadline_s: float | None = None
    tenant_id: TenantId = NO_TENANT
    avoid: frozenset[ReplicaId] = frozenset()


@dataclass(frozen=True, slots=True)
class PrefillEnded:
    """A dispatched turn has its first token.

    Attributes:
        num_cached_tokens: Prompt tokens the replica had KV of.
        first_token_seen: Whether it is known when that came; an answer in one piece brings it with
            all others. For whoever watches, and no part of the event.
    """

    turn_id: TurnId
    num_cached_tokens: int
    first_token_seen: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn is over: finished, aborted or failed; one still held is withdrawn.

    Attributes:
        num_context_tokens: Prompt and output as far as it got.
        gap: What the session does next.
        num_output_tokens: Of these, generated; None where that is the context less the prompt as
            it was counted on arrival. For whoever watches, and no part of the event.
    """

    turn_id: TurnId
    num_context_tokens: int
    gap: GapHint = NO_HINT
    num_output_tokens: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class GapHinted:
    """More is known of the tool gap that a session is in; not in one, it comes too late.

    Attributes:
        session_id: Which session.
        gap: What is known now, in place of what was; ``expected_s`` still counts from the
            beginning of the gap.
    """

    session_id: SessionId
    gap: GapHint


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session will not return; its KV is worth nothing any more."""

    session_id: SessionId


@dataclass(frozen=True, slots=True)
class Woken:
    """The time has come that the scheduler asked to be woken at."""


@dataclass(frozen=True, slots=True)
class ReplicaDown:
    """A replica takes no turns any more, and its KV is lost.

    Turns under way there end by events of their own; whoever drives may have them arrive anew.
    """

    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class ReplicaUp:
    """A replica takes turns again; it holds no KV."""

    replica_id: ReplicaId


Event = (
    TurnArrived
    | PrefillEnded
    | TurnEnded
    | GapHinted
    | SessionClosed
    | Woken
    | ReplicaDown
    | ReplicaUp
)
