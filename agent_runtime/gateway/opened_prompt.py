"""A prompt whose session is found and whose tokens are known, whatever form it came in."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agent_runtime.gateway.session_directory import ChatSession
from agent_runtime.prompts.block_hashes import Prompt
from agent_runtime.prompts.chat_prompt import RenderedMessage, digest_after, render_chat
from agent_runtime.prompts.raw_prompt import PromptTrail, RawPrompt


class OpenedPrompt(Protocol):
    """What the rest of the gateway needs of a prompt."""

    @property
    def session(self) -> ChatSession:
        """Whose it is."""
        ...

    @property
    def messages(self) -> Sequence[dict[str, Any]]:
        """The conversation, in the form of chat completions."""
        ...

    @property
    def digests(self) -> Sequence[bytes]:
        """Of the conversation after each of ``messages``."""
        ...

    @property
    def num_tokens(self) -> int:
        """Of the prompt."""
        ...

    def plan(self, reply: array[int]) -> Prompt:
        """Return the prompt with the hashes that a reply of these tokens leads to."""
        ...

    def digest_with(self, reply: dict[str, Any], tokens: array[int]) -> bytes | None:
        """Return by what a prompt is known that goes on after this reply, None if by nothing.

        Args:
            reply: As a message.
            tokens: What was generated.
        """
        ...


@dataclass(frozen=True, slots=True)
class OpenedChat:
    """A conversation.

    Attributes:
        rendered: What the model sees, tool definitions first.
    """

    session: ChatSession
    messages: Sequence[dict[str, Any]]
    digests: Sequence[bytes]
    num_tokens: int
    rendered: Sequence[RenderedMessage]

    def plan(self, reply: array[int]) -> Prompt:
        """Return the prompt with the hashes that a reply of these tokens leads to."""
        return self.session.memory.plan(reply)

    def digest_with(self, reply: dict[str, Any], tokens: array[int]) -> bytes:  # noqa: ARG002 - protocol
        """Return the digest of the conversation with this message at its end."""
        return digest_after(self.digests[-1], render_chat([reply], ())[0])


@dataclass(frozen=True, slots=True)
class OpenedText:
    """A text or tokens to go on with; to the model, one message.

    Attributes:
        text: None for tokens.
        prompt: Its tokens.
        trail: By what it is known again.
    """

    session: ChatSession
    text: str | None
    prompt: RawPrompt
    trail: PromptTrail

    @property
    def messages(self) -> Sequence[dict[str, Any]]:
        """The prompt as a user's message."""
        return ({"role": "user", "content": self.text or ""},)

    @property
    def digests(self) -> Sequence[bytes]:
        """Of that message."""
        return (self.trail.whole,)

    @property
    def num_tokens(self) -> int:
        """Of the prompt."""
        return self.prompt.num_tokens

    def plan(self, reply: array[int]) -> Prompt:
        """Return the prompt with the hashes that a reply of these tokens leads to."""
        return self.prompt.plan(reply)

    def digest_with(self, reply: dict[str, Any], tokens: array[int]) -> bytes | None:
        """Return the digest of the last stretch that the reply ends."""
        if self.text is None:
            return self.trail.digest_with(tokens.tobytes())
        said = str(reply.get("content") or "")
        return self.trail.digest_with(said.encode("utf-8", "surrogatepass"))
