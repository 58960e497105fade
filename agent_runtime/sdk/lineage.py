"""What a session comes of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.conversation import Conversation

if TYPE_CHECKING:
    from agent_runtime.sdk.session_core import SessionCore


@dataclass(frozen=True, slots=True)
class Lineage:
    """See the module.

    Attributes:
        parent: The session that started it; None for one that nobody did.
        waits: Whether the parent does nothing else meanwhile.
        is_fork: Whether it begins with the parent's conversation.
    """

    parent: SessionCore | None = None
    waits: bool = False
    is_fork: bool = False

    @property
    def parent_id(self) -> str | None:
        """The parent's id."""
        return None if self.parent is None else self.parent.session_id

    def conversation(self, agent: Agent) -> Conversation:
        """Return what it begins with."""
        if self.is_fork and self.parent is not None:
            return self.parent.conversation.copy()
        system = {"role": "system", "content": agent.instructions}
        return Conversation([system] if agent.instructions else [])


NO_LINEAGE = Lineage()
