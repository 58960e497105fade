"""One conversation of an agent, and those that come of it: forks, children."""

from __future__ import annotations

import inspect
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar, overload

import anyio
from pydantic import BaseModel

from agent_runtime.errors import ConfigError, told_plainly
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.budget import Budget
from agent_runtime.sdk.compaction import SUMMARISE, compacted
from agent_runtime.sdk.connection import Connection
from agent_runtime.sdk.events import Event, RunEnded, RunResult
from agent_runtime.sdk.journal import StepKind, StepLog
from agent_runtime.sdk.lineage import NO_LINEAGE, Lineage
from agent_runtime.sdk.mailboxes import Letter
from agent_runtime.sdk.replay import Replay
from agent_runtime.sdk.run import Asked, Run
from agent_runtime.sdk.session_core import SessionCore
from agent_runtime.sdk.session_terms import SessionTerms
from agent_runtime.sdk.tool_places import child_name_in_call
from agent_runtime.sdk.typed_output import format_of, parser_of

Output = TypeVar("Output", bound=BaseModel)
Joined = TypeVar("Joined")


class Session(SessionCore):
    """A conversation; ``Runtime.session``, ``fork`` and ``child`` open one.

    Attributes:
        session_id: The server keeps the conversation's KV under it.
        agent: Who talks.
        lineage: The session that it comes of.
        messages: The conversation so far.
        usage: Of all model calls so far.
    """

    _num_named = 0

    @overload
    async def run(self, text: str) -> RunResult[str]: ...

    @overload
    async def run(
        self, text: str, *, output: type[Output], second_tries: int = 0
    ) -> RunResult[Output]: ...

    async def run(
        self, text: str, *, output: type[BaseModel] | None = None, second_tries: int = 0
    ) -> RunResult[Any]:
        """Tell the agent something and let it work until it answers.

        Args:
            text: What it is told.
            output: A pydantic model that the answer must be.
            second_tries: How often it may answer again if it is not.

        Raises:
            ModelCallError: The server refused or failed.
            TurnLimitError: It called tools ``agent.max_turns`` times without an answer.
            OutputError: The answer is not what ``output`` wants.
            BudgetExceededError: Nothing is left to spend.
            SessionBusyError: Another run of the session is under way.
            JournalError: What happens can't be taken down.
        """
        if output is None:
            asked = Asked(text, streams=False)
        else:
            members = {"response_format": format_of(output)}
            parse = parser_of(output)
            asked = Asked(
                text, streams=False, members=members, parse=parse, second_tries=second_tries
            )
        return await self.carried_out(asked)

    async def carried_out(self, asked: Asked) -> RunResult[Any]:
        """Run. Raises as ``run``."""
        result: RunResult[Any] | None = None
        async with aclosing(self._events(asked)) as events:
            async for event in events:
                if isinstance(event, RunEnded):
                    result = event.result
        assert result is not None  # noqa: S101 - every run that doesn't raise ends with one
        return result

    def stream(self, text: str) -> AsyncGenerator[Event, None]:
        """Run, and yield what happens as it does; the last event is ``RunEnded``.

        Leaving the loop early cancels the run as soon as the generator is closed: at once within
        ``async with aclosing(session.stream(...)) as events``.

        Raises:
            ModelCallError, TurnLimitError, BudgetExceededError, SessionBusyError, JournalError:
                While iterating, as of ``run``.
        """
        return self._events(Asked(text, streams=True))

    @asynccontextmanager
    async def fork(
        self, *, name: str | None = None, agent: Agent | None = None, budget: Budget | None = None
    ) -> AsyncIterator[Session]:
        """Open another session whose conversation begins as this one's: they share that KV.

        Args:
            name: Its id; by default this one's and a number.
            agent: Who goes on; with another agent's instructions or tools, KV is not shared.
            budget: Of its own, within this one's.

        Raises:
            SessionBusyError: A run is under way.
        """
        async with self._forked(self._name(name), agent, budget, waits=False) as session:
            yield session

    @overload
    async def fork_map(
        self, texts: Sequence[str], *, at_once: int | None = None
    ) -> list[RunResult[str]]: ...

    @overload
    async def fork_map(
        self,
        texts: Sequence[str],
        *,
        join: Callable[[list[RunResult[str]]], Coroutine[Any, Any, Joined]],
        at_once: int | None = None,
    ) -> Joined: ...

    @overload
    async def fork_map(
        self,
        texts: Sequence[str],
        *,
        join: Callable[[list[RunResult[str]]], Joined],
        at_once: int | None = None,
    ) -> Joined: ...

    async def fork_map(
        self,
        texts: Sequence[str],
        *,
        join: Callable[[list[RunResult[str]]], Any] | None = None,
        at_once: int | None = None,
    ) -> Any:
        """Run a fork for each text, side by side; they share the KV of what was said so far.

        Args:
            texts: What each fork is told.
            join: Makes one of the results, which come in the order of the texts. ``adopt`` lets
                this session go on as one of the forks.
            at_once: Forks at a time; by default all.

        Raises:
            AgentError: As of ``run``, of the first fork that failed; the others are cancelled.
        """
        results: dict[int, RunResult[str]] = {}
        limit = anyio.CapacityLimiter(math.inf if at_once is None else at_once)
        names = [self._name(None) for _ in texts]

        async def one(index: int, text: str) -> None:
            async with limit, self._forked(names[index], None, None, waits=True) as fork:
                results[index] = await fork.run(text)

        with told_plainly():
            async with anyio.create_task_group() as tasks:
                for index, text in enumerate(texts):
                    tasks.start_soon(one, index, text)
        ordered = [results[index] for index in range(len(texts))]
        if join is None:
            return ordered
        joined = join(ordered)
        return await joined if inspect.isawaitable(joined) else joined

    @asynccontextmanager
    async def child(
        self,
        agent: Agent,
        *,
        name: str | None = None,
        priority: int | None = None,
        budget: Budget | None = None,
    ) -> AsyncIterator[Session]:
        """Open a session of another agent that this one waits for; the scheduler knows that.

        Args:
            agent: Who talks.
            name: Its id; by default this one's and a number.
            priority: By default this one's.
            budget: Of its own, within this one's.
        """
        own = self._priority if priority is None else priority
        terms = SessionTerms(own, self._requests.left_s(), budget)
        async with opened_session(
            self.connection, self._name(name), agent, terms, Lineage(self, waits=True)
        ) as session:
            yield session

    def mark(self) -> int:
        """Return where the conversation is, for ``rewind``."""
        self.check_idle()
        return len(self.conversation)

    def rewind(self, mark: int) -> None:
        """Forget what was said since a mark; the KV up to there is still of use.

        Raises:
            ConfigError: There was no such mark.
            SessionBusyError: A run is under way.
        """
        self.check_idle()
        if not 0 <= mark <= len(self.conversation):
            raise ConfigError(
                f"session {self.session_id} has {len(self.conversation)} messages and no mark at "
                f"{mark}; rewind to what mark() returned"
            )
        self.conversation.cut(mark)

    def adopt(self, result: RunResult[Any]) -> None:
        """Go on as the session that a result is of, e.g. the best of some forks.

        Raises:
            SessionBusyError: A run is under way.
        """
        self.check_idle()
        self.conversation.replace(result.messages)

    async def compact(self, *, keep_last: int = 0, instructions: str = SUMMARISE) -> str:
        """Have the model summarise the conversation, and go on with the summary in its place.

        Args:
            keep_last: Messages that stay as they are; more, if they would begin within a run.
            instructions: What the model is told.

        Returns:
            The summary.

        Raises:
            ModelCallError, BudgetExceededError, SessionBusyError, JournalError: As of ``run``.
        """
        with self.at_work():
            log = await self.begin_step(StepKind.COMPACT, instructions)
            try:
                summary = await self._summary(log, instructions)
            except Exception as error:
                await log.failed(error)
                raise
            self.conversation.cut(self._num_kept)
            self.conversation.replace(compacted(self.messages, summary, keep_last))
            self.keep_conversation()
        return summary

    async def send(self, to: str, content: Any) -> None:  # noqa: ANN401 - the program's own
        """Put a letter into a mailbox; waits while it is full.

        Args:
            to: An agent's name, or a session's id.
            content: Anything.
        """
        await self.connection.post.send(self.session_id, to, content)

    async def receive(self) -> Letter:
        """Return the next letter to this session's agent, which its sessions share."""
        return await self.connection.post.mailbox(self.agent.name).take()

    async def broadcast(self, to: Sequence[str], content: Any) -> None:  # noqa: ANN401
        """Put a letter into several mailboxes; returns when all have it."""
        await self.connection.post.broadcast(self.session_id, to, content)

    async def gather(
        self,
        to: Sequence[str],
        content: Any,  # noqa: ANN401 - the program's own
        *,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """Put a letter into several mailboxes and return the answers, in the order of the names.

        Raises:
            TimeoutError: They are not all there in time.
        """
        post = self.connection.post
        return await post.gather(self.session_id, to, content, timeout_s=timeout_s)

    async def _events(self, asked: Asked) -> AsyncGenerator[Event, None]:
        with self.at_work():
            async with aclosing(Run(self, asked).events()) as events:
                async for event in events:
                    await self.connection.tell(self, event)
                    yield event

    async def _summary(self, log: StepLog, instructions: str) -> str:
        self.conversation.add({"role": "user", "content": instructions})
        before = Replay(log.recorded).next_said()
        if before is not None:
            message, usage = before
        else:
            self.spending.check()
            # The tools stay, unused: they stand before the conversation, whose KV is found again.
            said = await self.whole_turn({"tool_choice": "none"} if self.agent.tools else {})
            message, usage = said.message, said.ended.usage
            await log.add(message, usage)
        if not log.recorded.ended:
            await log.ended()
        self.spending.add(usage)
        return str(message.get("content") or "")

    def _name(self, name: str | None) -> str:
        """Return the id of a session that comes of this one: the same ones in every life."""
        if name is not None:
            return name
        if (name_in_call := child_name_in_call(self.session_id)) is not None:
            return name_in_call
        self._num_named += 1
        return f"{self.session_id}.{self._num_named}"

    @asynccontextmanager
    async def _forked(
        self, fork_id: str, agent: Agent | None, budget: Budget | None, *, waits: bool
    ) -> AsyncIterator[Session]:
        self.check_idle()
        if self.is_known:
            await self.told(self.connection.calls.client.fork_session(self.session_id, fork_id))
        terms = SessionTerms(self._priority, self._requests.left_s(), budget)
        lineage = Lineage(self, waits=waits, is_fork=True)
        async with opened_session(
            self.connection, fork_id, agent or self.agent, terms, lineage
        ) as session:
            yield session


@asynccontextmanager
async def opened_session(
    connection: Connection,
    session_id: str,
    agent: Agent,
    terms: SessionTerms,
    lineage: Lineage = NO_LINEAGE,
) -> AsyncIterator[Session]:
    """Open a session; at the end the server learns that its KV is not needed any more.

    Args:
        connection: To which server.
        session_id: 1 to 256 printable characters.
        agent: Who talks.
        terms: How it is to be served.
        lineage: What it comes of.

    Raises:
        JournalError: It can't be taken down.
    """
    session = Session(connection, session_id, agent, terms, lineage)
    await session.open()
    is_over = False
    try:
        yield session
        is_over = True
    finally:
        await session.close(for_good=is_over)
