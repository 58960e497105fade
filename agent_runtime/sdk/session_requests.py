"""The requests of a session: what goes on the wire for a turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import anyio

from agent_runtime.chat_client import encoded_json
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.conversation import Conversation
from agent_runtime.sdk.session_terms import SessionTerms
from agent_runtime.session_headers import HINT_PREFIX, SESSION_HEADER, header_of

LEAST_S = 0.001
"""Of a deadline that has passed: the server takes none of 0."""


class SessionRequests:
    """Makes them.

    Args:
        session_id: Whose.
        agent: Its instructions are in the conversation, its tools and options here.
        model: Asked.
        terms: How it is to be served.
        waiting_id: The session that waits for this one, or None.
    """

    __slots__ = ("_due_s", "_headers", "_prefix")

    def __init__(
        self,
        session_id: str,
        agent: Agent,
        model: str,
        terms: SessionTerms,
        waiting_id: str | None,
    ) -> None:
        members = encoded_json({**agent.options, "model": model})
        tools = b",".join(tool.encoded for tool in agent.tools)
        offered = b',"tools":[%s]' % tools if tools else b""
        self._prefix = members[:-1] + offered + b',"messages":['
        headers = {SESSION_HEADER: header_of(session_id)}
        if waiting_id is not None:
            headers[f"{HINT_PREFIX}parent-session-id"] = header_of(waiting_id)
        if terms.priority is not None:
            headers[f"{HINT_PREFIX}priority"] = str(terms.priority)
        self._headers = headers
        self._due_s = math.inf
        if terms.deadline_s is not None:
            self._due_s = anyio.current_time() + terms.deadline_s

    def body(self, conversation: Conversation, members: Mapping[str, Any]) -> bytes:
        """Return a request's body. O(its bytes), but nothing is encoded a second time.

        Args:
            conversation: To go on with.
            members: More of the body.
        """
        tail = b"]," + encoded_json(members)[1:] if members else b"]}"
        return conversation.encoded_between(self._prefix, tail)

    def headers(self) -> dict[str, str]:
        """Return a request's headers."""
        if self._due_s == math.inf:
            return self._headers
        left = f"{max(LEAST_S, self.left_s() or 0):.3f}"
        return {**self._headers, f"{HINT_PREFIX}deadline-s": left}

    def left_s(self) -> float | None:
        """Return the seconds until the session should be done, None where nobody said."""
        return None if self._due_s == math.inf else self._due_s - anyio.current_time()
