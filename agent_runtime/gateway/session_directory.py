"""Whose turn a request is: by its session id, or by the conversation it goes on with.

Invariants: every mark that leads to a session is one of that session's, and goes with it; a
tenant's sessions stand in the order in which they were last seen, those turned away before all
others, and no tenant is kept that has none; every session has a time in ``_expiries``, not later
than it may be forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from agent_runtime.errors import InvalidRequestError, SessionStateError, UnknownSessionError
from agent_runtime.gateway.session_expiries import SessionExpiries
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.gateway.session_marks import answer_mark, prompt_mark, sought_marks
from agent_runtime.prompts.chat_prompt import PromptMemory
from scheduler.ids import SessionId, TenantId

MAX_ID_LENGTH = 256
MAX_BUSY_PASSED_OVER = 8


class ChatSession:
    """A conversation: its prompt memory and how to recognise what continues it.

    Attributes:
        session_id: As the scheduler knows it: the public id with its tenant.
        public_id: As its owner knows it.
        ttl_s: For how long it is known after it was last seen.
        parent_id: The session that started it.
        forked_from: The session whose conversation it began as.
        priority, deadline_s: Of its turns that don't say; the deadline on the runtime's clock.
        paused: Whether turns are refused.
        num_turns, num_cached_tokens, num_prompt_tokens: Of the turns that ended well.
        was_opened: By its owner, before its first turn: known though its turns are refused.
    """

    __slots__ = (
        "deadline_s", "forked_from", "last_seen_s", "marks", "memory", "num_active_turns",
        "num_cached_tokens", "num_prompt_tokens", "num_turns", "parent_id", "paused", "priority",
        "public_id", "session_id", "tenant_id", "ttl_s", "was_opened",
    )  # fmt: skip

    def __init__(
        self, tenant_id: TenantId, public_id: str, memory: PromptMemory, ttl_s: float
    ) -> None:
        self.tenant_id = tenant_id
        self.public_id = public_id
        self.session_id = scheduler_id(tenant_id, public_id)
        self.memory = memory
        self.ttl_s = ttl_s
        self.marks: list[bytes] = []
        self.num_active_turns = 0
        self.last_seen_s = 0.0
        self.parent_id: SessionId | None = None
        self.forked_from: str | None = None
        self.priority: int | None = None
        self.deadline_s: float | None = None
        self.paused = False
        self.num_turns = 0
        self.num_cached_tokens = 0
        self.num_prompt_tokens = 0
        self.was_opened = False

    @property
    def has_come_to_nothing(self) -> bool:
        """Whether it is but a name: no turn of it runs, or ended well, and nobody opened it."""
        return not (self.num_turns or self.num_active_turns or self.was_opened)

    @property
    def is_new(self) -> bool:
        """Whether it begins something: nobody waits for it who has got anywhere."""
        begun = self.num_turns or self.num_active_turns
        return not begun and self.parent_id is None and self.forked_from is None

    def started_by(self, parent_id: str | None) -> None:
        """Note a parent that a request names: it is the session's from then on."""
        if parent_id is not None:
            self.parent_id = scheduler_id(self.tenant_id, parent_id)


class SessionListener(Protocol):
    """Is told of what clients would miss, were the sessions forgotten."""

    def changed(self, session: ChatSession) -> None:
        """A turn of it ended, or its owner told something of it."""
        ...

    def closed(self, session: ChatSession) -> None:
        """Its owner said that it is over."""
        ...

    def marked(self, session: ChatSession, mark: bytes) -> None:
        """There is another mark that leads to it."""
        ...


class SessionDirectory:
    """Sessions by id and by history, bounded in number and age.

    Args:
        block_size_tokens: Of the prompt memories.
        max_sessions: Beyond this many, the longest unseen ones of the tenant that has most are
            forgotten: who floods the directory pushes out nobody else. A session of 120k tokens
            takes about 0.6 MB.
        idle_ttl_s: So are sessions unseen for this long, unless they have a time of their own.
        era: In the ids of sessions that nobody named; ids in other eras are others.

    Attributes:
        listener: Told of changes; None for nobody.
    """

    def __init__(
        self,
        block_size_tokens: int,
        *,
        max_sessions: int = 4_000,
        idle_ttl_s: float = 3600.0,
        era: str = "",
    ) -> None:
        self.listener: SessionListener | None = None
        self._block_size_tokens = block_size_tokens
        self._era = era
        self._max_sessions = max_sessions
        self._idle_ttl_s = idle_ttl_s
        self._sessions: dict[SessionId, ChatSession] = {}
        self._by_tenant: dict[TenantId, OrderedDict[SessionId, ChatSession]] = {}
        self._by_mark: dict[bytes, ChatSession] = {}
        self._expiries = SessionExpiries()
        self._num_created = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, keys: SessionKeys, digests: Sequence[bytes], now_s: float) -> ChatSession:
        """Return the session of a request, a new one if nothing is known of it.

        Args:
            keys: What the request says of whose turn it is.
            digests: Chain digests of the request's messages, see ``chain_digests``.
            now_s: Seconds, never going back.

        Raises:
            InvalidRequestError: A key that can't be sent back in a header, or is too long.
        """
        if keys.exact is not None:
            check_session_id(keys.exact)
        session = self.known(keys, digests)
        if session is None:
            session = self._create(keys.tenant_id, keys.exact, self._idle_ttl_s, now_s)
        self._seen(session, now_s)
        if keys.exact is None and digests and (keys.scope or keys.thread):
            self._mark_anew(session, prompt_mark(keys, digests[-1]))
        return session

    def create(
        self, tenant_id: TenantId, public_id: str | None, ttl_s: float | None, now_s: float
    ) -> ChatSession:
        """Open a session before its first turn.

        Raises:
            InvalidRequestError: A bad id.
            SessionStateError: There is one of that id.
        """
        if public_id is not None:
            check_session_id(public_id)
            if scheduler_id(tenant_id, public_id) in self._sessions:
                raise SessionStateError(
                    f"The session `{public_id}` exists already; choose another id, or delete it.",
                    param="id",
                )
        session = self._create(
            tenant_id, public_id, self._idle_ttl_s if ttl_s is None else ttl_s, now_s
        )
        session.was_opened = True
        self._seen(session, now_s)
        return session

    def restore(
        self, tenant_id: TenantId, public_id: str, ttl_s: float, now_s: float
    ) -> ChatSession:
        """Return a session that was known before, or elsewhere, and is not known here."""
        session = self._create(tenant_id, public_id, ttl_s, now_s)
        session.was_opened = True
        return session

    def find_named(self, tenant_id: TenantId, public_id: str) -> ChatSession | None:
        """Return a session, None where nothing is known of it."""
        return self._sessions.get(scheduler_id(tenant_id, public_id))

    def known(self, keys: SessionKeys, digests: Sequence[bytes]) -> ChatSession | None:
        """Return the session of a request, None if nothing is known of it. See ``find``."""
        if keys.exact is not None:
            return self.find_named(keys.tenant_id, keys.exact)
        return self._by_history(keys, digests)

    def get(self, tenant_id: TenantId, public_id: str) -> ChatSession:
        """Return a session.

        Raises:
            UnknownSessionError: Nothing is known of it.
        """
        session = self.find_named(tenant_id, public_id)
        if session is None:
            raise UnknownSessionError(
                f"The session `{public_id}` does not exist, or was forgotten.", param="session_id"
            )
        return session

    def knows(self, session_id: SessionId) -> bool:
        """Return whether there is a session of that id."""
        return session_id in self._sessions

    def page(
        self, tenant_id: TenantId, after: str | None, limit: int
    ) -> tuple[list[ChatSession], bool]:
        """Return a tenant's sessions by id, and whether there are more.

        Args:
            tenant_id: Whose.
            after: The id that the page before ended with, or None.
            limit: At most so many.
        """
        known = self._by_tenant.get(tenant_id)
        own = sorted(known.values() if known else (), key=lambda session: session.public_id)
        rest = [session for session in own if after is None or session.public_id > after]
        return rest[:limit], len(rest) > limit

    def close(self, session: ChatSession) -> None:
        """Forget a session that its owner says is over."""
        self.forget(session)
        if self.listener is not None:
            self.listener.closed(session)

    def forget(self, session: ChatSession) -> None:
        """Know a session no more; whoever else knows it still does."""
        if self._is_known(session):
            self._forget(session)

    def turn_ended(
        self, session: ChatSession, num_prompt_tokens: int, num_cached_tokens: int
    ) -> None:
        """Count a turn that ended well."""
        session.num_turns += 1
        session.num_prompt_tokens += num_prompt_tokens
        session.num_cached_tokens += num_cached_tokens
        self.changed(session)

    def changed(self, session: ChatSession) -> None:
        """Take in that something was told of a session."""
        if self.listener is not None:
            self.listener.changed(session)

    def remember(self, session: ChatSession, keys: SessionKeys, digest: bytes) -> None:
        """Let a request whose messages begin with this history find ``session``."""
        self._mark_anew(session, answer_mark(keys, digest))

    def mark(self, session: ChatSession, mark: bytes) -> bool:
        """Let a mark lead to a session; return whether it did not."""
        known = self._by_mark.get(mark) is session  # a turn that was tried again
        if known or not self._is_known(session):
            return False
        session.marks.append(mark)
        self._by_mark[mark] = session
        return True

    def turned_away(self, session: ChatSession) -> None:
        """Note that its first turn was refused: where there are too many, it is forgotten first."""
        self._by_tenant[session.tenant_id].move_to_end(session.session_id, last=False)

    def forget_old(self, now_s: float) -> list[SessionId]:
        """Forget sessions beyond the limits, but none with a turn under way; return their ids.

        O(log sessions) amortised over calls, and O(tenants) for each beyond the limit: of those
        with a turn under way only a few are passed over in a call.
        """
        forgotten: list[SessionId] = []
        while (expired := self._expiries.take_before(now_s)) is not None:
            session = self._sessions[expired]
            if session.num_active_turns:
                session.last_seen_s = now_s
            if session.last_seen_s + session.ttl_s < now_s:
                self._forget(session)
                forgotten.append(session.session_id)
            else:
                self._expire_later(session)
        num_passed_over = 0
        while len(self._sessions) > self._max_sessions and num_passed_over < MAX_BUSY_PASSED_OVER:
            most = max(self._by_tenant.values(), key=len)
            session = next(iter(most.values()))
            if session.num_active_turns:
                num_passed_over += 1
                self._seen(session, now_s)
            else:
                self._forget(session)
                forgotten.append(session.session_id)
        return forgotten

    def _is_known(self, session: ChatSession) -> bool:
        return self._sessions.get(session.session_id) is session

    def _seen(self, session: ChatSession, now_s: float) -> None:
        session.last_seen_s = now_s
        self._by_tenant[session.tenant_id].move_to_end(session.session_id)

    def _expire_later(self, session: ChatSession) -> None:
        self._expiries.expect(session.session_id, session.last_seen_s + session.ttl_s)

    def _forget(self, session: ChatSession) -> None:
        del self._sessions[session.session_id]
        own = self._by_tenant[session.tenant_id]
        del own[session.session_id]
        if not own:
            del self._by_tenant[session.tenant_id]
        self._expiries.drop(session.session_id)
        for mark in session.marks:
            if self._by_mark.get(mark) is session:
                del self._by_mark[mark]

    def _mark_anew(self, session: ChatSession, mark: bytes) -> None:
        if self.mark(session, mark) and self.listener is not None:
            self.listener.marked(session, mark)

    def _by_history(self, keys: SessionKeys, digests: Sequence[bytes]) -> ChatSession | None:
        for mark, is_for_idle in sought_marks(keys, digests):
            session = self._by_mark.get(mark)
            if session is not None and not (is_for_idle and session.num_active_turns):
                return session
        return None

    def _create(
        self, tenant_id: TenantId, public_id: str | None, ttl_s: float, now_s: float
    ) -> ChatSession:
        if public_id is None:
            public_id = self._fresh_id(tenant_id)
        session = ChatSession(tenant_id, public_id, PromptMemory(self._block_size_tokens), ttl_s)
        session.last_seen_s = now_s
        self._sessions[session.session_id] = session
        self._by_tenant.setdefault(tenant_id, OrderedDict())[session.session_id] = session
        self._expire_later(session)
        return session

    def _fresh_id(self, tenant_id: TenantId) -> str:
        while True:
            self._num_created += 1
            public_id = f"found-{self._era}{self._num_created}"
            if scheduler_id(tenant_id, public_id) not in self._sessions:
                return public_id


def check_session_id(public_id: str) -> None:
    """Raise if an id can't be one.

    Raises:
        InvalidRequestError: It can't be sent back in a header, or is too long.
    """
    if (
        not 0 < len(public_id) <= MAX_ID_LENGTH
        or not public_id.isprintable()
        or public_id != public_id.strip()
    ):
        raise InvalidRequestError(
            f"session_id: expected 1 to {MAX_ID_LENGTH} printable characters, "
            "with no white space at either end",
            param="session_id",
        )


def scheduler_id(tenant_id: TenantId, public_id: str) -> SessionId:
    """Return the id of a tenant's session; names of tenants have no slash."""
    return SessionId(f"{tenant_id}/{public_id}" if tenant_id else public_id)
