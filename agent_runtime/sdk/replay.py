"""What an earlier life recorded of a step, taken from in the order in which it is needed."""

from __future__ import annotations

from collections import deque

from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded


class Replay:
    """See the module.

    Args:
        recorded: The step.
    """

    def __init__(self, recorded: Recorded) -> None:
        said = [message for message in recorded.messages if message["role"] == "assistant"]
        self._said = deque(zip(said, recorded.usages, strict=True))
        self._results: deque[Message] = deque(
            message for message in recorded.messages if message["role"] == "tool"
        )

    def next_said(self) -> tuple[Message, Usage] | None:
        """Return what the model said next, and what that cost; None where that is not known."""
        return self._said.popleft() if self._said else None

    def result_of(self, call_id: str) -> Message | None:
        """Return the result of a call of the message just said; None where that is not known.

        Ids may come again in later messages, so the first result of that id is taken, once.
        """
        for message in self._results:
            if message["tool_call_id"] == call_id:
                self._results.remove(message)
                return message
        return None
