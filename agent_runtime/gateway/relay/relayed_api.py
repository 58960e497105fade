"""The seam between what is the same for every relayed call and the APIs they come in.

An API reads as much of a request as the scheduler needs. What it can't read it passes over: the
engine knows best what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from agent_runtime.engine_call import ReplyReader
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import DialectName
from agent_runtime.prompts.chat_prompt import (
    PromptMemory,
    PromptPiece,
    are_longer,
    chain_digests,
    render_chat,
)
from agent_runtime.prompts.raw_prompt import PromptTrail

Fields = Mapping[str, Any]


class History(Protocol):
    """By what a prompt, and what goes on after its reply, are known again."""

    def digests(self) -> Sequence[bytes]:
        """Return one of all up to each of its parts."""
        ...

    def digest_with(self, reply: Mapping[str, Any]) -> bytes | None:
        """Return that of the prompt with a reply, None where nothing is to be known by it."""
        ...


class RelayedPrompt(Protocol):
    """What the model sees."""

    @property
    def pieces(self) -> Sequence[PromptPiece]:
        """Of it; none where it can't be read."""
        ...

    @property
    def history(self) -> History:
        """By what it is known."""
        ...

    def open_in(self, memory: PromptMemory, salt: str | None, most_tokens: int) -> int:
        """Bring a memory up to it; return its tokens.

        Args:
            memory: Of its session.
            salt: As of ``PromptMemory.open_prompt``.
            most_tokens: Of what is certainly longer, nothing is kept.

        Raises:
            InvalidRequestError: What can't be read at all.
        """
        ...


class ReadPrompt(msgspec.Struct, frozen=True):
    """A ``RelayedPrompt`` that was read whole."""

    pieces: Sequence[PromptPiece]
    history: History

    def open_in(self, memory: PromptMemory, salt: str | None, most_tokens: int) -> int:
        """Bring a memory up to it; return its tokens."""
        return memory.open_prompt(() if are_longer(self.pieces, most_tokens) else self.pieces, salt)


class AskedOfEngine(msgspec.Struct, frozen=True):
    """What is posted, and who reads the reply."""

    body: bytes
    reader: ReplyReader


class RelayedApi(Protocol):
    """One API."""

    @property
    def name(self) -> DialectName:
        """Which."""
        ...

    @property
    def path(self) -> str:
        """Where it is posted, here and at the engine."""
        ...

    @property
    def takes_members(self) -> bool:
        """Whether engines take the session and the priority in the body."""
        ...

    def read(self, body: bytes) -> Fields:
        """Return a body's members; those that only ``prompt`` looks into may be unread.

        Raises:
            InvalidRequestError: Not a JSON object.
        """
        ...

    def prompt(self, fields: Fields) -> RelayedPrompt:
        """Return what the model sees."""
        ...

    def scope(self, fields: Fields) -> str | None:
        """Return what the body names that several sessions share."""
        ...

    def lease_s(self, fields: Fields) -> float | None:
        """Return for how long the body asks that KV be kept, None where it says nothing.

        Raises:
            InvalidRequestError: It asks for what there is not.
        """
        ...

    def output_cap(self, fields: Fields) -> int | None:
        """Return the most tokens the caller wants, None where it doesn't say."""
        ...

    def asked(self, fields: Fields, body: bytes) -> AskedOfEngine:
        """Return what a first engine is asked."""
        ...

    def continued(self, fields: Fields, reader: ReplyReader) -> AskedOfEngine | None:
        """Return what goes on where a reply broke off, None where that can't be exact."""
        ...

    def broken(self, error: RequestError | BackendError, reader: ReplyReader) -> bytes:
        """Return the events that end a stream which can't go on."""
        ...


@dataclass(frozen=True, slots=True)
class ChatHistory:
    """The history of a prompt made of messages."""

    pieces: Sequence[PromptPiece]

    def digests(self) -> Sequence[bytes]:
        """Return one of all up to each message."""
        return chain_digests(self.pieces)

    def digest_with(self, reply: Mapping[str, Any]) -> bytes | None:
        """Return that of the conversation with the reply at its end."""
        if not self.pieces:
            return None
        said = render_chat([{**reply, "role": "assistant"}], ())
        return chain_digests([*self.pieces, *said])[-1]


@dataclass(frozen=True, slots=True)
class TextHistory:
    """The history of a prompt that is a text."""

    text: str

    def digests(self) -> Sequence[bytes]:
        """Return one of all up to each stretch."""
        return PromptTrail.of_text(self.text).digests

    def digest_with(self, reply: Mapping[str, Any]) -> bytes | None:
        """Return that of the text with the reply at its end."""
        said = str(reply.get("content") or "")
        return PromptTrail.of_text(self.text).digest_with(said.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class NoHistory:
    """The history of a prompt that is not known again."""

    def digests(self) -> Sequence[bytes]:
        """Return none."""
        return ()

    def digest_with(self, reply: Mapping[str, Any]) -> None:
        """Return none."""


def least_cap(fields: Fields, *names: str) -> int | None:
    """Return the first of these members that says how many tokens are wanted."""
    for name in names:
        cap = fields.get(name)
        if isinstance(cap, int) and cap > 0:
            return cap
    return None


def text_of(fields: Fields, name: str) -> str | None:
    """Return a member that is a text, None for any other."""
    value = fields.get(name)
    return value if isinstance(value, str) and value else None
