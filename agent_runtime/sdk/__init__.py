"""Agents in Python: tools from functions, sessions that keep their KV, any OpenAI-like server.

from agent_runtime.sdk import Agent, connect, tool
"""

from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.events import (
    Event,
    RunEnded,
    RunResult,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnEnded,
    Usage,
)
from agent_runtime.sdk.runtime import AgentRuntime, connect
from agent_runtime.sdk.session import Session
from agent_runtime.sdk.tools import Tool, tool

__all__ = [
    "Agent",
    "AgentRuntime",
    "Event",
    "RunEnded",
    "RunResult",
    "Session",
    "TextDelta",
    "Tool",
    "ToolCalled",
    "ToolReturned",
    "TurnEnded",
    "Usage",
    "connect",
    "tool",
]
