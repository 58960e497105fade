"""What all sessions of a runtime share."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from agent_runtime.sdk.events import Event
from agent_runtime.sdk.journal import Journal
from agent_runtime.sdk.mailboxes import PostOffice
from agent_runtime.sdk.model_calls import ModelCalls
from agent_runtime.sdk.spans import Spans

if TYPE_CHECKING:
    from agent_runtime.sdk.session import Session

Hook: TypeAlias = Callable[["Session", Event], Awaitable[None] | None]
"""Is told of every event of every session, before the program; what it raises ends the run."""


@dataclass(frozen=True, slots=True)
class Connection:
    """To one server.

    Attributes:
        calls: Model calls there.
        model: Asked where an agent names none.
        post: The mailboxes.
        journal: What outlives the process.
        spans: Tracing.
        hooks: Told of events.
    """

    calls: ModelCalls
    model: str
    post: PostOffice
    journal: Journal
    spans: Spans
    hooks: Sequence[Hook]

    async def tell(self, session: Session, event: Event) -> None:
        """Tell the hooks."""
        for hook in self.hooks:
            done = hook(session, event)
            if inspect.isawaitable(done):
                await done
