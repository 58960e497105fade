"""A small MCP server on standard input and output."""

import anyio
from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("small")


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ValueError(reason)


@server.tool()
async def slow(ctx: Context) -> str:
    """Tell how far it is."""
    for step in range(1, 4):
        await ctx.report_progress(step, 4)
    return "slow is done"


@server.tool()
async def stuck() -> str:
    """Take too long."""
    await anyio.sleep(5)
    return "late"


if __name__ == "__main__":
    server.run()
