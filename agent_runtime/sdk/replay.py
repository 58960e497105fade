"""What an earlier life recorded of a step, taken from in the order in which it is needed."""

from __future__ import annotations

from collections import deque

from agent_runtime.errors import JournalError
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
        self._results = _of_role(recorded, "tool")
        self._asked_again = _of_role(recorded, "user")

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

    def next_asked_again(self) -> bool:
        """Return whether it is known that the model was told to answer again, this time."""
        return bool(self._asked_again) and bool(self._asked_again.popleft())

    def check_all_taken(self, session_id: str) -> None:
        """See to it that a step that comes to its end did all that it did in its earlier life.

        Raises:
            JournalError: It didn't.
        """
        left = [
            name
            for name, some in (
                ("answers of the model", self._said),
                ("results of tools", self._results),
                ("demands for another answer", self._asked_again),
            )
            if some
        ]
        if left:
            raise JournalError(
                f"session {session_id}: the step is over, but in its earlier life there were more "
                f"{' and '.join(left)}; let the program be as it was, or give it another journal"
            )


def _of_role(recorded: Recorded, role: str) -> deque[Message]:
    return deque(message for message in recorded.messages if message["role"] == role)
