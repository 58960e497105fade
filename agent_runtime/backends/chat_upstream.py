"""A real server whose words are given out at the emulated rack's pace."""

from __future__ import annotations

from dataclasses import dataclass

import httpx2

from agent_runtime.chat_client import ChatClient, ChatServer


@dataclass(slots=True)
class Lateness:
    """How often, and by how much, the real model was behind the rack.

    Attributes:
        num_turns: Turns that ended.
        num_late: Turns with a chunk that came when the rack had released it long ago.
        worst_s: The longest such delay.
    """

    num_turns: int = 0
    num_late: int = 0
    worst_s: float = 0.0

    def count(self, late_s: float, tolerance_s: float = 0.05) -> None:
        """Count a turn whose latest chunk was so late."""
        self.num_turns += 1
        self.num_late += late_s > tolerance_s
        self.worst_s = max(self.worst_s, late_s)


class ChatUpstream(ChatClient):
    """A client of that server.

    Args: as of ``ChatClient``.

    Attributes:
        lateness: Of its answers so far, told by whoever paces them.
    """

    def __init__(
        self, server: ChatServer, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        super().__init__(server, transport)
        self.lateness = Lateness()
