"""Agents in Python: tools from functions, sessions that keep their KV, any OpenAI-like server.

``from agent_runtime.sdk import Agent, Runtime, tool``
"""

from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.blocking import BlockingRuntime, BlockingSession
from agent_runtime.sdk.budget import Budget, Prices
from agent_runtime.sdk.emulation import Emulation
from agent_runtime.sdk.events import (
    Decision,
    Event,
    RunEnded,
    RunResult,
    RunStarted,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnEnded,
    TurnStarted,
    Usage,
)
from agent_runtime.sdk.mailboxes import Letter, Mailbox
from agent_runtime.sdk.mcp_tools import McpTool, mcp_server, mcp_tools
from agent_runtime.sdk.model_calls import Patience
from agent_runtime.sdk.otel_spans import OpenTelemetrySpans
from agent_runtime.sdk.runtime import Runtime, RuntimeOptions
from agent_runtime.sdk.session import Session
from agent_runtime.sdk.sub_agents import agent_tool
from agent_runtime.sdk.tool_context import ToolContext
from agent_runtime.sdk.tools import Tool, tool
from agent_runtime.sdk.virtual import run_virtual

__all__ = [
    "Agent",
    "BlockingRuntime",
    "BlockingSession",
    "Budget",
    "Decision",
    "Emulation",
    "Event",
    "Letter",
    "Mailbox",
    "McpTool",
    "OpenTelemetrySpans",
    "Patience",
    "Prices",
    "RunEnded",
    "RunResult",
    "RunStarted",
    "Runtime",
    "RuntimeOptions",
    "Session",
    "TextDelta",
    "Tool",
    "ToolCalled",
    "ToolContext",
    "ToolReturned",
    "TurnEnded",
    "TurnStarted",
    "Usage",
    "agent_tool",
    "mcp_server",
    "mcp_tools",
    "run_virtual",
    "tool",
]
