"""Whose turn a request is: by its session id, or by the conversation it goes on with.

Invariants: every digest that leads to a session is one of that session's, and goes with it;
sessions stand in the order in which they were last seen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent_runtime.errors import InvalidRequestError, UnknownSessionError
from agent_runtime.prompts.chat_prompt import PromptMemory
from scheduler.ids import SessionId

MAX_ID_LENGTH = 256
MAX_BUSY_PASSED_OVER = 8


class ChatSession:
    """A conversation: its prompt memory and how to recognise what continues it."""

    __slots__ = ("digests", "is_named", "last_seen_s", "memory", "num_active_turns", "session_id")

    def __init__(self, session_id: SessionId, memory: PromptMemory, *, is_named: bool) -> None:
        self.session_id = session_id
        self.memory = memory
        self.is_named = is_named  # by its caller
        self.digests: list[bytes] = []
        self.num_active_turns = 0
        self.last_seen_s = 0.0

    @contextmanager
    def turn_under_way(self) -> Iterator[None]:
        """Keep the session from being forgotten while the context lasts."""
        self.num_active_turns += 1
        try:
            yield
        finally:
            self.num_active_turns -= 1


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
            InvalidRequestError: A key that can't be sent back in a header, or is too long.
        """
        session = self._by_history(digests) if key is None else self._by_key(key)
        if session is None:
            session_id = self._fresh_id() if key is None else SessionId(key)
            session = self._create(session_id, is_named=key is not None)
        self._seen(session, now_s)
        return session

    def close(self, session_id: str) -> SessionId:
        """Forget a session that its owner says is over; return its id.

        Raises:
            UnknownSessionError: Nothing is known of it.
        """
        session = self._sessions.get(SessionId(session_id))
        if session is None:
            raise UnknownSessionError(
                f"The session `{session_id}` does not exist, or was forgotten.", param="session_id"
            )
        self._forget(session)
        return session.session_id

    def remember(self, session: ChatSession, digest: bytes) -> None:
        """Let a request whose messages begin with this history find ``session``."""
        known = self._by_digest.get(digest) is session  # a turn that was tried again
        if not known and self._sessions.get(session.session_id) is session:
            session.digests.append(digest)
            self._by_digest[digest] = session

    def forget_old(self, now_s: float) -> list[SessionId]:
        """Forget sessions beyond the limits, but none with a turn under way; return their ids.

        O(1) amortised over calls: one with a turn under way counts as seen now, and of those only
        a few are passed over in a call.
        """
        forgotten: list[SessionId] = []
        num_passed_over = 0
        while self._sessions and num_passed_over < MAX_BUSY_PASSED_OVER:
            session = next(iter(self._sessions.values()))
            too_many = len(self._sessions) > self._max_sessions
            if not too_many and now_s - session.last_seen_s <= self._idle_ttl_s:
                break
            if session.num_active_turns:
                num_passed_over += 1
                self._seen(session, now_s)
            else:
                self._forget(session)
                forgotten.append(session.session_id)
        return forgotten

    def _seen(self, session: ChatSession, now_s: float) -> None:
        session.last_seen_s = now_s
        self._sessions.move_to_end(session.session_id)

    def _forget(self, session: ChatSession) -> None:
        del self._sessions[session.session_id]
        for digest in session.digests:
            if self._by_digest.get(digest) is session:
                del self._by_digest[digest]

    def _by_history(self, digests: Sequence[bytes]) -> ChatSession | None:
        for digest in reversed(digests):
            session = self._by_digest.get(digest)
            if session is not None:
                return session
        return None

    def _by_key(self, key: str) -> ChatSession | None:
        if not 0 < len(key) <= MAX_ID_LENGTH or not key.isprintable() or key != key.strip():
            raise InvalidRequestError(
                f"session_id: expected 1 to {MAX_ID_LENGTH} printable characters, "
                "with no white space at either end",
                param="session_id",
            )
        return self._sessions.get(SessionId(key))

    def _create(self, session_id: SessionId, *, is_named: bool) -> ChatSession:
        memory = PromptMemory(self._block_size_tokens)
        session = ChatSession(session_id, memory, is_named=is_named)
        self._sessions[session_id] = session
        return session

    def _fresh_id(self) -> SessionId:
        while True:
            self._num_created += 1
            session_id = SessionId(f"found-{self._num_created}")
            if session_id not in self._sessions:
                return session_id
