"""Whose turn a request is: by its session id, or by the conversation it goes on with.

Invariant: every digest that leads to a session is one of that session's, and goes with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.prompt import PromptMemory
from scheduler.ids import SessionId

MAX_ID_LENGTH = 256


class ChatSession:
    """A conversation: its prompt memory and how to recognise what continues it."""

    __slots__ = ("digests", "last_seen_s", "memory", "num_active_turns", "session_id")

    def __init__(self, session_id: SessionId, memory: PromptMemory) -> None:
        self.session_id = session_id
        self.memory = memory
        self.digests: list[bytes] = []
        self.num_active_turns = 0
        self.last_seen_s = 0.0


class SessionDirectory:
    """Sessions by id and by history, bounded in number and age.

    Args:
        block_size_tokens: Of the prompt memories.
        max_sessions: The longest unseen ones beyond this many are forgotten. A session of 120k
            tokens takes about 0.6 MB.
        idle_ttl_s: So are sessions unseen for this long.
    """

    def __init__(
        self, block_size_tokens: int, *, max_sessions: int = 4_000, idle_ttl_s: float = 3600.0
    ) -> None:
        self._block_size_tokens = block_size_tokens
        self._max_sessions = max_sessions
        self._idle_ttl_s = idle_ttl_s
        self._sessions: OrderedDict[SessionId, ChatSession] = OrderedDict()  # longest unseen first
        self._by_digest: dict[bytes, ChatSession] = {}
        self._num_created = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, key: str | None, digests: Sequence[bytes], now_s: float) -> ChatSession:
        """Return the session of a request, a new one if nothing is known of it.

        Args:
            key: The caller's session id, or None.
            digests: Chain digests of the request's messages, see ``chain_digests``.
            now_s: Seconds, never going back.

        Raises:
            InvalidRequestError: A key that is empty, too long or not printable.
        """
        session = self._by_history(digests) if key is None else self._by_key(key)
        if session is None:
            session = self._create(self._fresh_id() if key is None else SessionId(key))
        session.last_seen_s = now_s
        self._sessions.move_to_end(session.session_id)
        return session

    def remember(self, session: ChatSession, digest: bytes) -> None:
        """Let a request whose messages begin with this history find ``session``."""
        if self._sessions.get(session.session_id) is session:
            session.digests.append(digest)
            self._by_digest[digest] = session

    def forget_old(self, now_s: float) -> list[SessionId]:
        """Forget sessions beyond the limits, but none with a turn under way; return their ids."""
        forgotten = []
        for session_id, session in list(self._overdue(now_s)):
            del self._sessions[session_id]
            for digest in session.digests:
                if self._by_digest.get(digest) is session:
                    del self._by_digest[digest]
            forgotten.append(session_id)
        return forgotten

    def _overdue(self, now_s: float) -> list[tuple[SessionId, ChatSession]]:
        """The idle sessions at the old end that are too many or too old."""
        excess = len(self._sessions) - self._max_sessions
        overdue = []
        for session_id, session in self._sessions.items():
            if excess <= 0 and now_s - session.last_seen_s <= self._idle_ttl_s:
                break
            if session.num_active_turns == 0:
                overdue.append((session_id, session))
                excess -= 1
        return overdue

    def _by_history(self, digests: Sequence[bytes]) -> ChatSession | None:
        for digest in reversed(digests):
            session = self._by_digest.get(digest)
            if session is not None:
                return session
        return None

    def _by_key(self, key: str) -> ChatSession | None:
        if not key or len(key) > MAX_ID_LENGTH or not key.isprintable():
            raise InvalidRequestError(
                f"expected 1 to {MAX_ID_LENGTH} printable characters", param="session_id"
            )
        return self._sessions.get(SessionId(key))

    def _create(self, session_id: SessionId) -> ChatSession:
        session = ChatSession(session_id, PromptMemory(self._block_size_tokens))
        self._sessions[session_id] = session
        return session

    def _fresh_id(self) -> SessionId:
        while True:
            self._num_created += 1
            session_id = SessionId(f"found-{self._num_created}")
            if session_id not in self._sessions:
                return session_id
