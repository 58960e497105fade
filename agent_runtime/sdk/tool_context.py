"""What a tool may know of the call it answers, and tell of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_runtime.sdk.session import Session


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Given to tools that have a parameter of this type; the model does not see it.

    Attributes:
        session: Whose call it is.
        call_id: As the model named it.
    """

    session: Session
    call_id: str
    _hint: Callable[[Mapping[str, float]], Awaitable[None]]

    async def expect(self, seconds: float) -> None:
        """Tell the scheduler how long the tool takes in all; it keeps or drops KV by that."""
        await self._hint({"expected_tool_s": seconds})

    async def progress(self, share: float) -> None:
        """Tell the scheduler which share of its work, above 0 to 1, is done."""
        await self._hint({"progress": share})
