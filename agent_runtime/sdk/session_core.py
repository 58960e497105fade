"""What runs and tools need of a session: its turns, its steps in the journal, its server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio

from agent_runtime.errors import BackendError, InternalError, SessionBusyError
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.budget import NO_BUDGET, Spending
from agent_runtime.sdk.connection import Connection
from agent_runtime.sdk.conversation import Conversation, Message
from agent_runtime.sdk.events import TextDelta, Usage
from agent_runtime.sdk.journal import SessionJournal, SessionOpened, StepBegun, StepKind, StepLog
from agent_runtime.sdk.lineage import Lineage
from agent_runtime.sdk.model_calls import Said
from agent_runtime.sdk.session_requests import SessionRequests
from agent_runtime.sdk.session_terms import SessionTerms
from agent_runtime.sdk.tool_places import current_place

CLOSING_S = 5.0
"""What a server has to take note of a session's end."""

STREAMED: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


class SessionCore:
    """See the module; ``Session`` has what programs use.

    Args:
        connection: Which server, and what all its sessions share.
        session_id: The server keeps the conversation's KV under it.
        agent: Who talks.
        terms: How it is to be served.
        lineage: What it comes of.

    Attributes:
        connection, session_id, agent, lineage: As given.
        model: That answers.
        conversation: Its messages.
        spending: What it may spend and has spent.
        num_steps: Begun so far.

    Invariant: outside of steps, the conversation is one that the model can go on with: a step that
        fails or is cancelled leaves it as it was before.
    """

    def __init__(
        self,
        connection: Connection,
        session_id: str,
        agent: Agent,
        terms: SessionTerms,
        lineage: Lineage,
    ) -> None:
        self.connection = connection
        self.session_id = session_id
        self.agent = agent
        self.lineage = lineage
        self.conversation = lineage.conversation(agent)
        self.conversation.note_unchanged()
        parent = lineage.parent
        self.spending: Spending = Spending(
            terms.budget or NO_BUDGET,
            session_id,
            anyio.current_time(),
            None if parent is None else parent.spending,
        )
        self.model = agent.model or connection.model
        waiting_id = lineage.parent_id if lineage.waits else None
        self._requests = SessionRequests(session_id, agent, self.model, terms, waiting_id)
        self._priority = terms.priority
        self._journal: SessionJournal | None = None
        self._is_running = False
        self.num_steps = 0
        self._num_kept = len(self.conversation)
        self._is_known: bool | None = None  # to the server, as a session; None: no answer yet
        self._has_asked = False

    async def open(self) -> None:
        """Have the journal take it down.

        Raises:
            JournalError: It can't.
        """
        parent = self.lineage.parent
        forked = parent.conversation if self.lineage.is_fork and parent is not None else None
        num_kept = 0 if forked is None else forked.num_unchanged
        self._journal = await self.connection.journal.session(
            SessionOpened(
                self.session_id,
                self.agent.name,
                self.model,
                self.lineage.parent_id,
                is_fork=forked is not None,
                num_kept=num_kept,
                added=self.conversation.messages[num_kept:],
                place=current_place(),
            )
        )

    def go_on(self, journal: SessionJournal, conversation: Conversation, num_steps: int) -> None:
        """Be a session of an earlier life, instead of opening one.

        Args:
            journal: Takes it down.
            conversation: As it was.
            num_steps: That were begun before.
        """
        self._journal, self.conversation, self.num_steps = journal, conversation, num_steps

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, as it goes on the wire; not to be changed."""
        return self.conversation.messages

    @property
    def usage(self) -> Usage:
        """Of all model calls so far, of children and forks too, those of failed runs included."""
        return self.spending.usage

    async def hint(self, hint: Mapping[str, float]) -> None:
        """Tell the scheduler of the tools that run now; a hint that does not arrive is no loss.

        Args:
            hint: ``expected_tool_s`` in all, or ``progress``, the share that is done.
        """
        if self.is_known:
            client = self.connection.calls.client
            await self.told(client.hint_session(self.session_id, hint))

    async def begin_step(
        self, kind: StepKind, told: str, members: Mapping[str, Any] | None = None
    ) -> StepLog:
        """Have the journal begin a step."""
        conversation = self.conversation
        num_kept, added = conversation.num_unchanged, tuple(conversation.changed())
        begun = StepBegun(kind, told, num_kept, added, members or {})
        if self._journal is None:
            raise InternalError(f"session {self.session_id} was not opened")
        self.num_steps += 1
        log = await self._journal.step(begun)
        if log.recorded.messages:
            self._has_asked = True  # in an earlier life: the server may have KV of it
        return log

    async def whole_turn(self, members: Mapping[str, Any]) -> Said:
        """Have the model go on with the conversation."""
        async with self.spending.in_time():
            body = self._requests.body(self.conversation, members)
            self._has_asked = True
            said = await self.connection.calls.whole(body, self._requests.headers())
        self._is_known = said.knows_session
        return said

    async def stream_turn(
        self, members: Mapping[str, Any]
    ) -> AsyncGenerator[TextDelta | Said, None]:
        """Have the model go on with the conversation, and yield what it says as it comes."""
        body = self._requests.body(self.conversation, {**members, **STREAMED})
        self._has_asked = True
        async with self.connection.calls.stream(body, self._requests.headers()) as parts:
            while True:
                async with self.spending.in_time():
                    part = await anext(parts, None)
                if part is None:
                    return
                if isinstance(part, Said):
                    self._is_known = part.knows_session
                yield part

    def keep_conversation(self) -> None:
        """Let the conversation stay as it is when the step is over."""
        self._num_kept = len(self.conversation)

    async def close(self, *, for_good: bool) -> None:
        """Say that it is over; a server that is gone needs no telling."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CLOSING_S):
                if self._has_asked and self._is_known is not False:
                    client = self.connection.calls.client
                    await self.told(client.close_session(self.session_id))
            if self._journal is not None:
                await self._journal.left(for_good=for_good)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep other runs out; at the end forget the messages beyond ``_num_kept``."""
        self.check_idle()
        self._is_running, self._num_kept = True, len(self.conversation)
        try:
            yield
        finally:
            self.conversation.cut(self._num_kept)
            self._is_running = False

    def check_idle(self) -> None:
        """Raise ``SessionBusyError`` while a step is under way."""
        if self._is_running:
            raise SessionBusyError(
                f"session {self.session_id} is at work; await its run, or open another session"
            )

    @property
    def is_known(self) -> bool:
        """Whether the server knows it as a session."""
        return bool(self._is_known)

    async def told(self, telling: Awaitable[None]) -> None:
        """Tell the server what is good to know; where it is gone, the next turn finds that out."""
        try:
            await telling
        except BackendError:
            return
