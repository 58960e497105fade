"""The tool calls of one message: side by side, taken down as they are done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import anyio

from agent_runtime.errors import told_plainly
from agent_runtime.sdk.conversation import Message, ToolCall
from agent_runtime.sdk.events import ToolReturned
from agent_runtime.sdk.spans import Span
from agent_runtime.sdk.tool_context import ToolContext
from agent_runtime.sdk.tool_places import in_call
from agent_runtime.sdk.tools import ToolFailure

if TYPE_CHECKING:
    from agent_runtime.sdk.session import Session


async def call_tools(
    session: Session,
    calls: Mapping[str, ToolCall],
    run: Span,
    done: Callable[[ToolReturned], Awaitable[None]],
) -> None:
    """Run calls side by side.

    The scheduler is told how long the longest one is expected to take, if its tool says so.

    Args:
        session: Whose.
        calls: What the model wants, by where in the session's life that is.
        run: The span they are in.
        done: Told of each as it is done; what it raises ends the others.
    """

    async def one(place: str, call: ToolCall) -> None:
        with (
            in_call(place, session.session_id),
            session.connection.spans.tool(session, run, call) as span,
        ):
            returned = await _returned(session, call)
            span.ended(returned)
        await done(returned)

    tools = [session.agent.tool_named(call.name) for call in calls.values()]
    expected_s = max([tool.expected_s or 0.0 for tool in tools if tool is not None], default=0.0)
    if len(calls) == 1 and not expected_s:
        await one(*next(iter(calls.items())))
        return
    with told_plainly():
        async with anyio.create_task_group() as tasks:
            if expected_s:
                tasks.start_soon(session.hint, {"expected_tool_s": expected_s})
            for place, call in calls.items():
                tasks.start_soon(one, place, call)


def told(returned: ToolReturned) -> Message:
    """Return a result as it goes on the wire."""
    return {"role": "tool", "tool_call_id": returned.call_id, "content": returned.content}


async def _returned(session: Session, call: ToolCall) -> ToolReturned:
    tool = session.agent.tool_named(call.name)
    if tool is None:
        names = ", ".join(known.name for known in session.agent.tools) or "none"
        content = f"error: no tool {call.name!r}; there is: {names}"
        return ToolReturned(call.call_id, call.name, content, failed=True)
    context = ToolContext(session, call.call_id, session.hint)
    try:
        content = await tool.call(call.arguments, context)
    except ToolFailure as failure:
        return ToolReturned(call.call_id, call.name, f"error: {failure}", failed=True)
    return ToolReturned(call.call_id, call.name, content, failed=False)
