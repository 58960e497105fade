"""What a turn asks of the scheduler beside its tokens, from what its caller said and its session.

Needs no model: whoever answers says which tools were called.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent_runtime.gateway.client_hints import ClientHints
from agent_runtime.gateway.session_directory import ChatSession
from scheduler.events import GapCause, GapHint
from scheduler.ids import SessionId, TenantId


class TurnTerms(msgspec.Struct, frozen=True):
    """Whose turn it is and how urgent, as ``TurnRequest`` has it.

    Attributes:
        deadline_s: On the runtime's clock, or None.
    """

    parent_id: SessionId | None
    tenant_id: TenantId
    priority: int
    deadline_s: float | None


def turn_terms(hints: ClientHints, session: ChatSession, now_s: float) -> TurnTerms:
    """Return a turn's terms: what the request says, else what its session was opened with.

    Args:
        hints: What its caller said.
        session: Whose turn it is.
        now_s: On the runtime's clock, when it was asked.
    """
    priority = session.priority if hints.priority is None else hints.priority
    seconds = hints.deadline_s
    return TurnTerms(
        parent_id=None if session.parent_id == session.session_id else session.parent_id,
        tenant_id=session.tenant_id,
        priority=priority or 0,
        deadline_s=session.deadline_s if seconds is None else now_s + seconds,
    )


def gap_after(hints: ClientHints, tools_called: Sequence[str], *, offers_tools: bool) -> GapHint:
    """Return what a session does after an answer: run the tools it calls, or wait for its user.

    Where no tools were offered, a caller that says how long one takes runs what it reads in the
    text.
    """
    lease_s = hints.lease_s or 0.0
    if tools_called or (hints.expected_s is not None and not offers_tools):
        return GapHint(GapCause.TOOL, tuple(tools_called), hints.expected_s, lease_s)
    return GapHint(GapCause.HUMAN, lease_s=lease_s)
