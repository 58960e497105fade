"""Takes down sessions, and brings those that are not known here into the directory.

A session is a group with one value, and so is every mark by which it is found without its name. One
that was closed stays as such for a while, so that gateways which share it know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import msgspec

from agent_runtime.clock import epoch_s
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal, group_of
from agent_runtime.gateway.session_directory import ChatSession, SessionDirectory
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.gateway.session_marks import sought_marks
from scheduler.ids import SessionId, TenantId

SESSION, MARK = "session", "mark"
CARD = "card"


class SessionCard(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is taken down of a session; see ``ChatSession``.

    Attributes:
        deadline_epoch_s: Its deadline, in seconds since 1970.
        is_closed: Whether its owner said that it is over.
    """

    ttl_s: float
    parent_id: str | None = None
    forked_from: str | None = None
    priority: int | None = None
    deadline_epoch_s: float | None = None
    paused: bool = False
    num_turns: int = 0
    num_cached_tokens: int = 0
    num_prompt_tokens: int = 0
    is_closed: bool = False


class SessionJournal:
    """See the module; it listens to the directory.

    Args:
        journal: Takes them down.
        sessions: The directory.
        now_s: The runtime's clock.
        close: Told of sessions that another gateway closed.
    """

    def __init__(
        self,
        journal: GatewayJournal,
        sessions: SessionDirectory,
        now_s: Callable[[], float],
        close: Callable[[SessionId], None],
    ) -> None:
        self._journal, self._sessions = journal, sessions
        self._now_s, self._close = now_s, close

    def changed(self, session: ChatSession) -> None:
        """Take down how a session is now."""
        self._put(session, self._card(session))

    def closed(self, session: ChatSession) -> None:
        """Take down that a session is over."""
        self._put(session, SessionCard(session.ttl_s, is_closed=True))

    def marked(self, session: ChatSession, mark: bytes) -> None:
        """Take down by what a session is found."""
        name = f"{session.tenant_id}/{session.public_id}".encode("utf-8", "surrogatepass")
        self._journal.records.put(_mark_group(mark), {CARD: name}, session.ttl_s)

    async def settled(self) -> None:
        """Return once what was taken down is durable, or has waited for long enough."""
        await self._journal.settled()

    async def recall(self, keys: SessionKeys, digests: Sequence[bytes]) -> None:
        """Have the directory know the session that a request is of, if there is one.

        It costs nothing where no other gateway may know better than the directory; a session that
        can't be read now is not brought in.
        """
        known = self._sessions.known(keys, digests)
        if known is not None:
            if self._journal.is_shared:
                await self._recall(known.tenant_id, known.public_id)
        elif keys.exact is not None:
            await self._recall(keys.tenant_id, keys.exact)
        else:
            await self._recall_by_history(keys, digests)

    async def recall_named(self, tenant_id: TenantId, public_id: str) -> None:
        """Have the directory know a session as it is.

        Raises:
            JournalUnreadableError: The journal can't be read now, and nothing is known here.
        """
        if self._sessions.find_named(tenant_id, public_id) is not None:
            await self.recall(SessionKeys(tenant_id=tenant_id, exact=public_id), ())
            return
        values = await self._journal.look_up(group_of(SESSION, tenant_id, public_id))
        self._take(tenant_id, public_id, values)

    async def recall_all(self, tenant_id: TenantId) -> None:
        """Have the directory know all sessions of a tenant.

        Raises:
            JournalUnreadableError: The journal can't be read now.
        """
        prefix = group_of(SESSION, tenant_id, "")
        groups = await self._journal.names(prefix)
        for group, values in zip(groups, await self._journal.read(groups), strict=True):
            self._take(tenant_id, group.removeprefix(prefix), values)

    async def _recall(self, tenant_id: TenantId, public_id: str) -> None:
        (values,) = await self._journal.read_if_possible([group_of(SESSION, tenant_id, public_id)])
        self._take(tenant_id, public_id, values)

    async def _recall_by_history(self, keys: SessionKeys, digests: Sequence[bytes]) -> None:
        marks = [mark for mark, _ in sought_marks(keys, digests)]
        found = await self._journal.read_if_possible([_mark_group(mark) for mark in marks])
        for mark, values in zip(marks, found, strict=True):
            tenant_id, slash, public_id = values.get(CARD, b"").decode().partition("/")
            if not slash or tenant_id != keys.tenant_id:
                continue
            await self._recall(keys.tenant_id, public_id)
            session = self._sessions.find_named(keys.tenant_id, public_id)
            if session is not None:
                self._sessions.mark(session, mark)
                return

    def _take(self, tenant_id: TenantId, public_id: str, values: dict[str, bytes]) -> None:
        """Bring the directory up to what is taken down of a session."""
        if CARD not in values:
            return
        card = msgspec.json.decode(values[CARD], type=SessionCard)
        session = self._sessions.find_named(tenant_id, public_id)
        if card.is_closed:
            if session is not None and not session.num_active_turns:
                self._sessions.forget(session)
                self._close(session.session_id)
            return
        if session is None:
            now_s = anyio.current_time()
            session = self._sessions.restore(tenant_id, public_id, card.ttl_s, now_s)
        self._fill(session, card)

    def _fill(self, session: ChatSession, card: SessionCard) -> None:
        session.parent_id = None if card.parent_id is None else SessionId(card.parent_id)
        session.forked_from, session.paused = card.forked_from, card.paused
        session.priority = card.priority
        if card.deadline_epoch_s is not None:
            session.deadline_s = self._now_s() + card.deadline_epoch_s - epoch_s()
        session.num_turns = card.num_turns
        session.num_cached_tokens = card.num_cached_tokens
        session.num_prompt_tokens = card.num_prompt_tokens

    def _card(self, session: ChatSession) -> SessionCard:
        deadline = session.deadline_s
        return SessionCard(
            session.ttl_s,
            session.parent_id,
            session.forked_from,
            session.priority,
            None if deadline is None else deadline - self._now_s() + epoch_s(),
            session.paused,
            session.num_turns,
            session.num_cached_tokens,
            session.num_prompt_tokens,
        )

    def _put(self, session: ChatSession, card: SessionCard) -> None:
        group = group_of(SESSION, session.tenant_id, session.public_id)
        self._journal.records.put(group, {CARD: msgspec.json.encode(card)}, session.ttl_s)


def _mark_group(mark: bytes) -> str:
    return f"{MARK}/{mark.hex()}"
