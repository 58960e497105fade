"""The way in: sessions on a server, or on an emulated rack in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import httpx2

from agent_runtime.chat_client import ChatClient, ChatServer
from agent_runtime.errors import BackendError, ConfigError, ModelCallError
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.budget import Budget
from agent_runtime.sdk.connection import Connection, Hook
from agent_runtime.sdk.emulation import Emulation, emulated_transport
from agent_runtime.sdk.events import RunResult
from agent_runtime.sdk.journal import Journal
from agent_runtime.sdk.journal_places import opened_journal
from agent_runtime.sdk.mailboxes import DEFAULT_CAPACITY, Mailbox, PostOffice
from agent_runtime.sdk.model_calls import ModelCalls, Patience
from agent_runtime.sdk.resumption import resumed
from agent_runtime.sdk.session import Session, opened_session
from agent_runtime.sdk.session_terms import SessionTerms
from agent_runtime.sdk.spans import NoSpans, Spans


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """What sessions have around them, whichever server they are on.

    Attributes:
        journal: Lets sessions outlive the process: a file, which is begun where there is none, a
            Redis that several programs may share (``redis://host:6379/0``, ``rediss://``,
            ``unix://``), or a journal that is open; by default nothing does.
        spans: Traces runs, model calls and tool calls; by default nothing is.
        hooks: Told of every event of every session.
        patience: How often model calls are tried.
        mailbox_capacity: Letters in each mailbox; who sends to a full one waits.
    """

    journal: str | Path | Journal | None = None
    spans: Spans | None = None
    hooks: Sequence[Hook] = ()
    patience: Patience | None = None
    mailbox_capacity: int = DEFAULT_CAPACITY


DEFAULT_OPTIONS = RuntimeOptions()


class Runtime:
    """Sessions on one server; ``Runtime.connect`` and ``Runtime.emulated`` open it.

    Attributes:
        model: Of agents that name none.
    """

    def __init__(self, connection: Connection) -> None:
        self.model = connection.model
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        base_url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float | None = 600.0,
        options: RuntimeOptions = DEFAULT_OPTIONS,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> AsyncIterator[Self]:
        """Open a connection to an OpenAI-compatible server.

        Args:
            base_url: Of its API, ``/v1`` included; by default ``PANJIU_BASE_URL`` or
                ``OPENAI_BASE_URL``, which ``panjiu run`` sets.
            model: By default ``PANJIU_MODEL``, or the first model that the server has.
            api_key: By default ``OPENAI_API_KEY``.
            timeout_s: The longest wait for the next byte of an answer.
            options: What sessions have around them.
            transport: For tests; by default the network.

        Raises:
            ConfigError: No server is named, or it has no model.
            ModelCallError: It can't be reached.
            JournalError: The journal can't be opened; on the way out: can't be written.
        """
        url = base_url or os.environ.get("PANJIU_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise ConfigError(
                "no server: pass base_url, set OPENAI_BASE_URL, start the program with 'panjiu "
                "run', or emulate a rack with Runtime.emulated()"
            )
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
        server = ChatServer(url, api_key=key, timeout_s=timeout_s)
        async with (
            opened_journal(options.journal) as journal,
            ChatClient(server, transport) as client,
        ):
            name = model or os.environ.get("PANJIU_MODEL") or await _first_model(client)
            with PostOffice(options.mailbox_capacity) as post:
                yield cls(_connection(client, name, options, journal, post))

    @classmethod
    @asynccontextmanager
    async def emulated(
        cls,
        rack: str = "panjiu-al128",
        model: str = "qwen3-235b-a22b",
        *,
        emulation: Emulation | None = None,
        options: RuntimeOptions = DEFAULT_OPTIONS,
    ) -> AsyncIterator[Self]:
        """Open an emulated rack in this process, at the pace of the event loop's clock.

        Under ``VirtualTimeLoop``, and so under ``panjiu run --virtual``, that is virtual time.

        Args:
            rack: One that ``panjiu rack`` lists.
            model: One that ``panjiu models`` lists.
            emulation: How they are emulated.
            options: What sessions have around them.

        Raises:
            HardwareModelError: A rack or a model that is not known, or does not fit.
            JournalError: As of ``connect``.
        """
        how = Emulation() if emulation is None else emulation
        server = ChatServer("http://emulated.invalid/v1")
        async with (
            opened_journal(options.journal) as journal,
            emulated_transport(rack, model, how) as transport,
            ChatClient(server, transport) as client,
        ):
            with PostOffice(options.mailbox_capacity) as post:
                yield cls(_connection(client, model, options, journal, post))

    @asynccontextmanager
    async def session(
        self,
        agent: Agent,
        *,
        session_id: str | None = None,
        priority: int | None = None,
        deadline_s: float | None = None,
        budget: Budget | None = None,
    ) -> AsyncIterator[Session]:
        """Open a conversation; at the end the server learns that its KV is not needed any more.

        Args:
            agent: Who talks.
            session_id: 1 to 256 printable characters; by default the agent's name and a number.
                A journal knows a session by it, so name those that are to survive.
            priority: -64 to 64, smaller is more urgent.
            deadline_s: Seconds from now by which it should be done.
            budget: What it may spend, and those it starts.

        Raises:
            ConfigError: Not within these.
            JournalError: The journal has it as another agent's, or can't be written.
        """
        name = f"{agent.name}-{uuid4().hex[:12]}" if session_id is None else session_id
        terms = SessionTerms(priority, deadline_s, budget)
        async with opened_session(self._connection, name, agent, terms) as session:
            yield session

    async def resume(
        self, session_id: str, agent: Agent | None = None, *, model: str | None = None
    ) -> RunResult[str]:
        """Go on with a run that was under way in an earlier life, or failed, without its program.

        The program finds the answer when it runs again. Budgets, deadlines and priorities were its
        own and do not hold; a typed answer comes as its JSON.

        Args:
            session_id: Whose, in the journal.
            agent: Its agent; by default one made of the recorded instructions, without tools.
            model: Asked from now on; by default the agent's, or else the recorded one.

        Raises:
            ConfigError: There is no journal, it has nothing of that id to go on with,
                or has it as another agent's; or tools are under way and no agent is given.
            AgentError: As of ``Session.run``.
        """
        return await resumed(self._connection, session_id, agent, model)

    def mailbox(self, name: str) -> Mailbox:
        """Return the mailbox of an agent, or any other name."""
        return self._connection.post.mailbox(name)


def _connection(
    client: ChatClient,
    model: str,
    options: RuntimeOptions,
    journal: Journal,
    post: PostOffice,
) -> Connection:
    return Connection(
        ModelCalls(client, options.patience or Patience()),
        model,
        post,
        journal,
        options.spans or NoSpans(),
        options.hooks,
    )


async def _first_model(client: ChatClient) -> str:
    try:
        names = await client.models()
    except BackendError as error:
        raise ModelCallError(f"no model was named, and {error}") from error
    if not names:
        raise ConfigError(f"{client.server.base_url} has no model; pass model")
    return names[0]
