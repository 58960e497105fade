"""The connection to a server, and the sessions on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import anyio
import httpx2

from agent_runtime.chat_client import ChatClient, ChatServer
from agent_runtime.errors import BackendError, ConfigError, ModelCallError
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.model_calls import ModelCalls, Patience
from agent_runtime.sdk.session import Session

CLOSING_S = 5.0
"""What a server has to take note of a session's end."""


class AgentRuntime:
    """Sessions on one server; ``connect`` opens it.

    Attributes:
        model: The model of agents that name none.
    """

    def __init__(self, calls: ModelCalls, model: str) -> None:
        self.model = model
        self._calls = calls

    @asynccontextmanager
    async def session(
        self, agent: Agent, *, session_id: str | None = None
    ) -> AsyncIterator[Session]:
        """Open a conversation; at the end the server learns that its KV is not needed any more.

        Args:
            agent: Who talks.
            session_id: 1 to 256 printable characters; by default the agent's name and a number.
        """
        name = f"{agent.name}-{uuid4().hex[:12]}" if session_id is None else session_id
        session = Session(name, agent, self._calls, agent.model or self.model)
        try:
            yield session
        finally:
            await self._close(name)

    async def _close(self, session_id: str) -> None:
        """Say that a session is over; a server that is gone needs no telling."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSING_S):
            try:
                await self._calls.client.close_session(session_id)
            except BackendError:
                return


@asynccontextmanager
async def connect(
    base_url: str | None = None,
    *,
    model: str | None = None,
    api_key: str | None = None,
    timeout_s: float | None = 600.0,
    patience: Patience | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> AsyncIterator[AgentRuntime]:
    """Open a connection to an OpenAI-compatible server.

    Args:
        base_url: Of its API, ``/v1`` included; by default ``PANJIU_BASE_URL`` or
            ``OPENAI_BASE_URL``, which ``panjiu run`` sets.
        model: By default ``PANJIU_MODEL``, or the first model that the server has.
        api_key: By default ``OPENAI_API_KEY``.
        timeout_s: The longest wait for the next byte of an answer.
        patience: How often calls are tried.
        transport: For tests; by default the network.

    Raises:
        ConfigError: No server is named, or it has no model.
        ModelCallError: It can't be reached.
    """
    url = base_url or os.environ.get("PANJIU_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
    if not url:
        raise ConfigError(
            "no server: pass base_url, set OPENAI_BASE_URL, or start the program with 'panjiu run'"
        )
    key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
    async with ChatClient(ChatServer(url, api_key=key, timeout_s=timeout_s), transport) as client:
        calls = ModelCalls(client, Patience() if patience is None else patience)
        name = model or os.environ.get("PANJIU_MODEL") or await _first_model(client)
        yield AgentRuntime(calls, name)


async def _first_model(client: ChatClient) -> str:
    try:
        names = await client.models()
    except BackendError as error:
        raise ModelCallError(f"no model was named, and {error}") from error
    if not names:
        raise ConfigError(f"{client.server.base_url} has no model; pass model")
    return names[0]
