"""A chat's prompt, of which only those messages are read that its session has not had yet.

Clients send what they sent before byte by byte, and more at its end. So a turn costs what is new of
its conversation, and a hash of all that is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.gateway.relay.body_fields import ChatFields, read_member
from agent_runtime.gateway.relay.readable_parts import readable
from agent_runtime.gateway.relay.relayed_api import ChatHistory
from agent_runtime.prompts.chat_prompt import (
    PromptMemory,
    RenderedMessage,
    are_longer,
    render_chat,
)
from agent_runtime.prompts.sent_prompt import SentPrompt

_WHITESPACE = b" \t\n\r"


class UnreadChat:
    """The ``RelayedPrompt`` of a chat request, and its ``History``.

    Args:
        fields: Of it; its messages are a list.
    """

    __slots__ = ("_messages", "_pieces", "_tools", "_tools_sent")

    def __init__(self, fields: ChatFields) -> None:
        self._messages = fields.messages
        self._tools_sent, tools = fields.tools, fields.get("tools")
        self._tools: list[Any] = tools if isinstance(tools, list) else []
        self._pieces: Sequence[RenderedMessage] | None = None

    @property
    def pieces(self) -> Sequence[RenderedMessage]:
        """Its tools and messages; none where they can't be read, as the engine will say.

        Raises:
            InvalidRequestError: They are not JSON after all.
        """
        if self._pieces is None:
            self._pieces = _rendered(read_member(self._messages), self._tools) or ()
        return self._pieces

    @property
    def history(self) -> UnreadChat:
        """By what it is known: itself, as messages are read for that."""
        return self

    def digests(self) -> Sequence[bytes]:
        """Return one of all up to each message."""
        return ChatHistory(self.pieces).digests()

    def digest_with(self, reply: Mapping[str, Any]) -> bytes | None:
        """Return that of the conversation with the reply at its end."""
        return ChatHistory(self.pieces).digest_with(reply)

    def open_in(self, memory: PromptMemory, salt: str | None, most_tokens: int) -> int:
        """Bring a memory up to it; return its tokens.

        Raises:
            InvalidRequestError: Messages that nobody has read are not JSON after all.
        """
        end = self._end()
        known = memory.sent if self._pieces is None and memory.salt == salt else None
        if known is not None and end and known.leads(self._messages, self._tools_sent):
            more = _rendered(self._since(known.num_bytes, end), [])
            if more is not None and not are_longer(more, most_tokens):
                return memory.go_on(more, known.with_more(self._messages, end))
        pieces = self.pieces
        if not pieces or are_longer(pieces, most_tokens):
            return memory.open_prompt((), salt)
        sent = SentPrompt.first(self._messages, end, self._tools_sent) if end else None
        return memory.open_prompt(pieces, salt, sent)

    def _end(self) -> int:
        """Return where the last message ends; 0 where there is none, or it is no object."""
        end = self._messages.rfind(b"}") + 1
        return end if self._messages[end:].strip(_WHITESPACE) == b"]" else 0

    def _since(self, num_bytes: int, end: int) -> object:
        """Read the messages behind those that take so many bytes."""
        more = self._messages[num_bytes:end].lstrip(_WHITESPACE)
        return read_member(b"[" + more[1:] + b"]") if more else []


def _rendered(messages: object, tools: list[Any]) -> list[RenderedMessage] | None:
    """Return pieces, None where messages are no list of objects."""
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        return None
    return render_chat([readable(message) for message in messages], tools)
