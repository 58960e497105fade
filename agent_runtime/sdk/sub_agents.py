"""Agents as tools of other agents."""

from __future__ import annotations

from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.budget import Budget
from agent_runtime.sdk.tool_context import ToolContext
from agent_runtime.sdk.tools import Tool


def agent_tool(
    agent: Agent,
    description: str,
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    budget: Budget | None = None,
) -> Tool:
    """Make an agent a tool: each call is a child session, whose answer is the result.

    Args:
        agent: Who is called.
        description: When to call it, for the model.
        name: As the model knows it; by default the agent's.
        timeout_s: The longest one call may take.
        budget: Of one call, within the caller's.
    """

    async def ask(task: str, context: ToolContext) -> str:
        async with context.session.child(agent, budget=budget) as child:
            return (await child.run(task)).text

    ask.__doc__ = description
    return Tool(ask, name=agent.name if name is None else name, timeout_s=timeout_s)
