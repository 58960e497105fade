"""Runs that broke off, gone on with from the journal alone."""

from __future__ import annotations

from dataclasses import replace

from agent_runtime.errors import ConfigError
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.connection import Connection
from agent_runtime.sdk.conversation import Conversation
from agent_runtime.sdk.events import RunResult
from agent_runtime.sdk.journaling.journal import StoredJournal
from agent_runtime.sdk.journaling.stored import StoredStep
from agent_runtime.sdk.journaling.summaries import SessionSummary
from agent_runtime.sdk.lineage import NO_LINEAGE
from agent_runtime.sdk.run import Asked
from agent_runtime.sdk.session import Session
from agent_runtime.sdk.session_terms import SessionTerms


async def resumed(
    connection: Connection, session_id: str, agent: Agent | None, model: str | None
) -> RunResult[str]:
    """Go on with the run of a session; see ``Runtime.resume``."""
    journal = connection.journal
    if not isinstance(journal, StoredJournal):
        raise ConfigError(
            "nothing can be resumed without a journal; pass its path or URL as journal="
        )
    unfinished = await journal.take_up(session_id)
    summary, step = unfinished.summary, unfinished.step
    if agent is None:
        agent = _agent_without_tools(summary, step)
    elif agent.name != summary.agent:
        raise ConfigError(
            f"session {session_id} is of agent {summary.agent!r}, not of {agent.name!r}; name that "
            "agent"
        )
    agent = replace(agent, model=model or agent.model or summary.model)
    session = Session(connection, session_id, agent, SessionTerms(), NO_LINEAGE)
    session.go_on(unfinished.journal, _before(step), summary.num_steps - 1)
    for done in unfinished.done:
        session.spending.add(done.usage)
    asked = Asked(step.begun.told, streams=False, members=step.begun.members)
    try:
        return await session.carried_out(asked)
    finally:
        await session.close(for_good=False)


def _before(step: StoredStep) -> Conversation:
    """Return the conversation as it was when the step began, with the same part unchanged."""
    conversation = Conversation(step.before[: step.begun.num_kept])
    conversation.note_unchanged()
    conversation.extend(step.begun.added)
    return conversation


def _agent_without_tools(summary: SessionSummary, step: StoredStep) -> Agent:
    if step.open_calls:
        names = ", ".join(sorted({call.name for call in step.open_calls}))
        raise ConfigError(
            f"session {summary.session_id} waits for {names}; name the agent that has it, e.g. "
            f"--agent my_program:{summary.agent}"
        )
    first = step.before[0] if step.before else {"role": "none"}
    instructions = str(first["content"]) if first["role"] == "system" else ""
    return Agent(summary.agent, instructions)
