"""The messages of a conversation, encoded once each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from agent_runtime.chat_client import encoded_json

Message = dict[str, Any]


class ToolCall(NamedTuple):
    """What a model wants called; whatever the server left out is empty.

    Attributes:
        arguments: JSON, as the model wrote it.
    """

    call_id: str
    name: str
    arguments: str

    @classmethod
    def of(cls, call: Message) -> Self:
        """Read one of a message's ``tool_calls``."""
        function = call.get("function") or {}
        return cls(
            str(call.get("id") or ""),
            str(function.get("name") or ""),
            str(function.get("arguments") or "{}"),
        )


class Conversation:
    """Messages in order.

    A request costs the encoding of what is new; the rest is joined.

    Args:
        messages: That it begins with.

    Attributes:
        num_unchanged: How many messages from the beginning are those that were there when
            ``note_unchanged`` was last called.

    Invariant: ``_encoded`` has every message's JSON, after a comma from the second on; messages
        that were added never change.
    """

    __slots__ = ("_encoded", "_messages", "num_unchanged")

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._messages: list[Message] = []
        self._encoded: list[bytes] = []
        self.num_unchanged = 0
        self.extend(messages)

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of them, as they go on the wire; not to be changed."""
        return tuple(self._messages)

    @property
    def last(self) -> Message:
        """The last one.

        Raises:
            IndexError: There is none.
        """
        return self._messages[-1]

    def add(self, message: Message) -> None:
        """Add one.

        Raises:
            TypeError: It is not JSON.
        """
        comma = b"," if self._encoded else b""
        self._encoded.append(comma + encoded_json(message))
        self._messages.append(message)

    def extend(self, messages: Sequence[Message]) -> None:
        """Add some."""
        for message in messages:
            self.add(message)

    def cut(self, length: int) -> None:
        """Forget all beyond so many."""
        del self._messages[length:]
        del self._encoded[length:]
        self.num_unchanged = min(self.num_unchanged, length)

    def replace(self, messages: Sequence[Message]) -> None:
        """Have other messages; those at the beginning that are the same ones count as unchanged."""
        num_same = 0
        for before, after in zip(self._messages, messages, strict=False):
            if before is not after:
                break
            num_same += 1
        self.cut(num_same)
        self.extend(messages[num_same:])

    def note_unchanged(self) -> None:
        """Count all there is as unchanged."""
        self.num_unchanged = len(self._messages)

    def changed(self) -> Sequence[Message]:
        """Return the messages after ``num_unchanged``."""
        return self._messages[self.num_unchanged :]

    def copy(self) -> Conversation:
        """Return another one that begins the same; the messages are shared."""
        other = Conversation()
        other._messages, other._encoded = self._messages.copy(), self._encoded.copy()
        return other

    def encoded_between(self, head: bytes, tail: bytes) -> bytes:
        """Return the messages as JSON, without brackets, between other bytes; copied once."""
        return b"".join([head, *self._encoded, tail])

    def open_calls(self) -> list[ToolCall]:
        """Return what the last message of the model wants called and has no result yet."""
        returned = set()
        for message in reversed(self._messages):
            if message["role"] != "tool":
                wanted = [ToolCall.of(call) for call in message.get("tool_calls") or ()]
                return [call for call in wanted if call.call_id not in returned]
            returned.add(message["tool_call_id"])
        return []
