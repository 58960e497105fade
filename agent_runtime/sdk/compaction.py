"""A conversation with a summary in the place of what was said long ago."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.sdk.conversation import Message

SUMMARISE = (
    "Summarise our conversation for yourself, as you will go on with the summary alone: what is "
    "to be done, what was decided and why, what was found, what is open. Call no tools."
)
BEGINNING = "Summary of the conversation so far:\n\n"


def compacted(messages: Sequence[Message], summary: str, keep_last: int) -> list[Message]:
    """Return the instructions, the summary, and the last messages.

    Args:
        messages: The whole conversation.
        summary: Of it.
        keep_last: Messages that stay at least; they begin with what the agent was told, since a
            tool's result means nothing without its call.
    """
    head = [message for message in messages[:1] if message["role"] == "system"]
    first = len(messages)
    if keep_last > 0:
        first = max(len(head), len(messages) - keep_last)
        while first > len(head) and messages[first]["role"] != "user":
            first -= 1
    return [*head, {"role": "user", "content": BEGINNING + summary}, *messages[first:]]
