"""Tools of MCP servers, by the official package (``pip install 'panjiu[mcp]'``)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agent_runtime.chat_client import encoded_json
from agent_runtime.errors import ConfigError
from agent_runtime.sdk.tool_context import ToolContext
from agent_runtime.sdk.tools import ToolFailure

if TYPE_CHECKING:
    from mcp import ClientSession
    from mcp.types import CallToolResult
    from mcp.types import Tool as Described


class McpTool:
    """A tool of an MCP server; how far it is, if the server says so, goes to the scheduler.

    Args:
        client: An initialised session with the server.
        described: The tool, as the server lists it.
        prefix: Before its name, where two servers have one name for two tools.
        timeout_s: The longest one call may take.
        expected_s: How long it usually takes.
    """

    def __init__(
        self,
        client: ClientSession,
        described: Described,
        *,
        prefix: str = "",
        timeout_s: float | None = None,
        expected_s: float | None = None,
    ) -> None:
        self.name = prefix + described.name
        self.expected_s = expected_s
        self._client = client
        self._described = described
        self._timeout = None if timeout_s is None else timedelta(seconds=timeout_s)

    @cached_property
    def encoded(self) -> bytes:
        """Its definition as JSON."""
        function = {
            "name": self.name,
            "description": self._described.description or self._described.title or "",
            "parameters": self._described.inputSchema,
        }
        return encoded_json({"type": "function", "function": function})

    async def call(self, arguments: str, context: ToolContext | None = None) -> str:
        """Call it; return its texts, or what it made as JSON.

        Raises:
            ToolFailure: Arguments that are no object, an error of the server's, or a time-out.
        """
        from mcp.shared.exceptions import McpError  # noqa: PLC0415 - an extra

        try:
            values = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise ToolFailure(f"wrong arguments: {error}") from error
        if not isinstance(values, dict):
            raise ToolFailure("wrong arguments: they must be a JSON object")

        async def progressed(
            progress: float,
            total: float | None,
            message: str | None,  # noqa: ARG001 - MCP's
        ) -> None:
            if context is not None and total and 0 < progress <= total:
                await context.progress(progress / total)

        try:
            result = await self._client.call_tool(
                self._described.name, values, self._timeout, progressed
            )
        except McpError as error:
            raise ToolFailure(str(error)) from error
        said = _said(result)
        if result.isError:
            raise ToolFailure(said or "it failed and did not say why")
        return said


async def mcp_tools(
    client: ClientSession,
    *,
    prefix: str = "",
    timeout_s: float | None = None,
    expected_s: Mapping[str, float] | None = None,
) -> list[McpTool]:
    """Return the tools of a server.

    Args:
        client: An initialised session with it.
        prefix: Before their names.
        timeout_s: The longest one call may take.
        expected_s: How long they usually take, by their names there.
    """
    from mcp.types import PaginatedRequestParams  # noqa: PLC0415 - an extra

    tools, cursor = [], None
    while True:
        page = await client.list_tools(params=PaginatedRequestParams(cursor=cursor))
        for described in page.tools:
            usual_s = None if expected_s is None else expected_s.get(described.name)
            tools.append(
                McpTool(client, described, prefix=prefix, timeout_s=timeout_s, expected_s=usual_s)
            )
        cursor = page.nextCursor
        if cursor is None:
            return tools


@asynccontextmanager
async def mcp_server(
    *command: str,
    url: str | None = None,
    env: Mapping[str, str] | None = None,
    prefix: str = "",
    timeout_s: float | None = None,
) -> AsyncIterator[list[McpTool]]:
    """Start an MCP server, or connect to one, and give its tools until the context is left.

    Args:
        command: What starts it; it is spoken to through its standard input and output.
        url: Where it is instead, with streamable HTTP.
        env: Of the command, beside the little that is handed on.
        prefix: Before the tools' names.
        timeout_s: The longest one call may take.

    Raises:
        ConfigError: Both or neither of command and url, or the extra is not installed.
    """
    if bool(command) == (url is not None):
        raise ConfigError("mcp_server: give a command, e.g. 'npx', 'server', or url=; one of both")
    try:
        from mcp import ClientSession  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError("MCP tools need a package: pip install 'panjiu[mcp]'") from error
    async with AsyncExitStack() as stack:
        reads, writes = await _streams(stack, command, url, env)
        client = await stack.enter_async_context(ClientSession(reads, writes))
        await client.initialize()
        yield await mcp_tools(client, prefix=prefix, timeout_s=timeout_s)


async def _streams(
    stack: AsyncExitStack, command: Sequence[str], url: str | None, env: Mapping[str, str] | None
) -> tuple[Any, Any]:
    if url is not None:
        from mcp.client.streamable_http import (  # noqa: PLC0415 - an extra
            streamable_http_client,
        )

        reads, writes, *_ = await stack.enter_async_context(streamable_http_client(url))
        return reads, writes
    from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: PLC0415 - an extra

    program, *args = command
    parameters = StdioServerParameters(
        command=program, args=args, env=None if env is None else dict(env)
    )
    reads, writes = await stack.enter_async_context(stdio_client(parameters))
    return reads, writes


def _said(result: CallToolResult) -> str:
    texts = [part.text for part in result.content if part.type == "text"]
    others = [part.type for part in result.content if part.type != "text"]
    if not texts and result.structuredContent is not None:
        return json.dumps(result.structuredContent)
    return "\n".join([*texts, *(f"({kind}, which can't be shown)" for kind in others)])
